"""The page on which people answer questions: who is asked what, the local server, and exchange with other tools."""
