"""Writers of literals: values as source code of the kernel's language."""
