import unittest

from slug import slug


class Slugs(unittest.TestCase):
    def test_words_are_joined(self):
        self.assertEqual(slug("Crème brûlée, twice!"), "creme-brulee-twice")

    def test_nothing_is_left_of_punctuation(self):
        self.assertEqual(slug("?!"), "")
