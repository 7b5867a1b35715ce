"""Read patches from mails, fit them to a tree, and apply them."""
