"""Write executed notebooks as web pages."""
