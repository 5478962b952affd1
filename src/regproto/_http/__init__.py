"""Reading what a peer said, and where it leads: pure functions of headers, URLs and bodies."""
