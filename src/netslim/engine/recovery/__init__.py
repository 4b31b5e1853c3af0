"""What the dependencies of a network allow to repair after channels were removed."""
