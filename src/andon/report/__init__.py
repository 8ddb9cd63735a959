"""Tables, figures and the HTML report, from the store alone."""
