"""Where work is done: by threads of this process, by processes of this machine, or on other machines."""
