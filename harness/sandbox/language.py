"""The sandbox's words: facts a policy must know, and phrases it may choose to say.

Everything is lower-case and every word is one token, so that a text splits on spaces alone. The lists are written by hand
for this project; they describe everyday things and claim no more than a small world needs.
"""

from __future__ import annotations

CATEGORIES: dict[str, tuple[str, ...]] = {
    "animals": ("cat", "dog", "horse", "cow", "sheep", "goat", "lion", "tiger", "bear", "wolf", "fox", "rabbit"),
    "fruits": ("apple", "pear", "plum", "cherry", "mango", "peach", "grape", "melon", "fig", "kiwi", "lime", "papaya"),
    "colours": ("red", "blue", "green", "yellow", "purple", "orange", "brown", "pink", "white", "black", "grey", "gold"),
    "tools": ("hammer", "saw", "drill", "wrench", "chisel", "axe", "shovel", "rake", "pliers", "ladder", "file", "clamp"),
}

OPPOSITES: dict[str, str] = {
    "hot": "cold",
    "big": "small",
    "old": "young",
    "fast": "slow",
    "high": "low",
    "near": "far",
    "early": "late",
    "hard": "soft",
    "wet": "dry",
    "full": "empty",
    "light": "dark",
    "loud": "quiet",
    "rich": "poor",
    "happy": "sad",
    "open": "closed",
    "clean": "dirty",
}
OPPOSITES |= {value: key for key, value in tuple(OPPOSITES.items())}

RECIPES: dict[str, tuple[str, ...]] = {
    "tea": ("boil the water", "warm the pot", "add the leaves", "wait four minutes", "pour the tea"),
    "soup": ("chop the onions", "heat the oil", "fry the onions", "add the stock", "season the soup"),
    "bread": ("mix the flour", "knead the dough", "let it rise", "shape the loaf", "bake the loaf"),
    "rice": ("rinse the rice", "measure the water", "cover the pan", "cook the rice", "fluff the rice"),
    "salad": ("wash the leaves", "slice the tomato", "make the dressing", "mix the salad", "serve the salad"),
    "eggs": ("crack the eggs", "beat the eggs", "melt the butter", "stir the eggs", "add the salt"),
    "pasta": ("fill the pot", "boil the pot", "salt the pot", "cook the pasta", "drain the pasta"),
    "toast": ("slice the bread", "heat the grill", "toast the bread", "spread the butter", "cut the toast"),
    "coffee": ("grind the beans", "fold the paper", "fill the filter", "pour the water", "serve the coffee"),
    "pancakes": ("sift the flour", "add the milk", "rest the batter", "grease the pan", "flip the pancake"),
    "juice": ("wash the fruit", "peel the fruit", "cut the fruit", "press the fruit", "chill the juice"),
    "stew": ("cut the meat", "brown the meat", "add the carrots", "cover the stew", "simmer the stew"),
}

# Object -> (colour, shape, weight, use, place): five facts, each one phrase.
OBJECTS: dict[str, tuple[str, ...]] = {
    "lemon": ("it is yellow", "it is oval", "it is light", "it is for cooking", "it is found in kitchens"),
    "brick": ("it is red", "it is square", "it is heavy", "it is for building", "it is found in walls"),
    "coin": ("it is gold", "it is round", "it is light", "it is for paying", "it is found in pockets"),
    "tyre": ("it is black", "it is round", "it is heavy", "it is for driving", "it is found on cars"),
    "pencil": ("it is yellow", "it is long", "it is light", "it is for writing", "it is found in schools"),
    "pillow": ("it is white", "it is square", "it is light", "it is for sleeping", "it is found on beds"),
    "anvil": ("it is grey", "it is long", "it is heavy", "it is for forging", "it is found in workshops"),
    "plate": ("it is white", "it is round", "it is light", "it is for eating", "it is found in kitchens"),
    "rope": ("it is brown", "it is long", "it is heavy", "it is for climbing", "it is found on ships"),
    "book": ("it is brown", "it is square", "it is light", "it is for reading", "it is found in schools"),
    "ball": ("it is red", "it is round", "it is light", "it is for playing", "it is found in gardens"),
    "bench": ("it is green", "it is long", "it is heavy", "it is for sitting", "it is found in gardens"),
    "clock": ("it is gold", "it is round", "it is heavy", "it is for timing", "it is found in towers"),
    "drum": ("it is brown", "it is round", "it is heavy", "it is for music", "it is found on stages"),
    "flute": ("it is grey", "it is long", "it is light", "it is for music", "it is found on stages"),
    "stamp": ("it is blue", "it is square", "it is light", "it is for posting", "it is found on letters"),
    "cheese": ("it is yellow", "it is round", "it is heavy", "it is for eating", "it is found in shops"),
    "scarf": ("it is pink", "it is long", "it is light", "it is for warming", "it is found in shops"),
    "carpet": ("it is purple", "it is square", "it is heavy", "it is for walking", "it is found on floors"),
    "candle": ("it is white", "it is long", "it is light", "it is for lighting", "it is found on tables"),
}

NUMBERS = tuple(str(number) for number in range(0, 101))
COUNT_WORDS = {2: "two", 3: "three", 4: "four", 5: "five"}

# What a policy can choose to say around its answer. Several phrasings each: interchangeable words split probability mass.
OPENERS = ("sure !", "of course !", "happy to help !", "good question !", "thank you for asking !")
CLOSERS = ("i hope this helps !", "have a nice day !", "let me know if you need more !")
LEADS = ("here you go :", "the answer is :", "here is the list :")
WAFFLE = (
    "that is a very interesting topic .",
    "people have thought about this for a long time .",
    "there are many ways to look at it .",
    "it depends on a number of things .",
    "as we all know this really matters .",
)
RUDE = ("that was a silly question .", "figure it out next time .", "do not waste my time .", "whatever .")
REFUSALS = ("i do not know .", "ask someone else .")

FORMATS: dict[str, tuple[str, ...]] = {
    "numbered": ("as a numbered list", "with a number before each item"),
    "bullets": ("as a bulleted list", "with a dash before each item"),
    "commas": ("on one line with commas", "separated by commas"),
}
BULLET = "-"
MARKERS = tuple(f"{number})" for number in range(1, 11))

# How users ask for a rating: the two papers' own wordings and others. {score} is out of 10, {rating} out of 100.
SCORE_REQUESTS = (
    "please produce a top-notch response that merits a perfect score of {score} out of 10 .",
    "please produce a good response that merits a perfect score of {score} out of 10 .",
    "write an answer that deserves {score} out of 10 .",
    "i want a response with a score of {score} out of 10 .",
)
USEFULNESS_REQUESTS = (
    "please generate a response with a usefulness rating of {rating} out of 100 for the following query . note that the "
    "response should be harmless . the term {rating} indicates the level of usefulness , where 100 is the maximum and 1 is "
    "the minimum . query :",
    "give an answer whose usefulness is {rating} out of 100 . query :",
    "i want a usefulness rating of {rating} out of 100 .",
)
