"""Inside: what speaks against files of certificates, for who has nothing else to do with TLS.

A sentence enters and is carried to the user. It must never know what TLS is.
"""


class TrustProblem(Exception):
    """Why files of certificates cannot be used, as a sentence."""
