import {wire} from "./layers.js";

wire(document);
