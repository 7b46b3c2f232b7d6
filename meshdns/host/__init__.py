"""Outside: what touches the machine. This file only makes the folder a package."""
