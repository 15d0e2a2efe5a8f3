import unittest

from wordstats import median_length, top_words, words


class WordsTest(unittest.TestCase):
    def test_words_are_lower_case_and_without_punctuation(self):
        self.assertEqual(words("It's Anna, isn't it?"), ["it's", "anna", "isn't", "it"])


class TopWordsTest(unittest.TestCase):
    def test_the_most_frequent_words_come_first(self):
        self.assertEqual(top_words("b a b c a b", count=2), [("b", 3), ("a", 2)])


class MedianLengthTest(unittest.TestCase):
    def test_an_odd_number_of_words_has_the_one_in_the_middle(self):
        self.assertEqual(median_length("a bbb ccccc"), 3)

    def test_an_even_number_of_words_has_the_mean_of_the_two_in_the_middle(self):
        self.assertEqual(median_length("a bb cccc ddddd"), 3)


if __name__ == "__main__":
    unittest.main()
