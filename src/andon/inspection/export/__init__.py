"""Export of the whole chain, its verification, and its runtimes; ``andon.inspection`` names what is public."""
