"""Outside: where objects are watched."""
