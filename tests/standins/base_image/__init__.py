"""Where the base image of the tests is made."""
