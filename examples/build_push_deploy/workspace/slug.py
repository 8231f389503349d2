"""What a tenant works on: names for URLs."""

import re
import unicodedata


def slug(title: str) -> str:
    """The title in small ASCII letters, digits and single hyphens."""
    plain = unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "-", plain.lower()).strip("-")
