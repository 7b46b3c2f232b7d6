"""Inside: the DNS proxy beside a workload. This file only makes the folder a package."""
