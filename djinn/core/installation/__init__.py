"""The installation on this machine: its folder, its embedded servers and its processes."""
