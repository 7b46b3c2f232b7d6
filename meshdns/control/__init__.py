"""Inside: the control plane: objects of several clusters in, each workload's name table out."""
