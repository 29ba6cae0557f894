"""Word lists of the story generator: names, kinds of characters, things, places and weather."""

NAMES_M = (
    "Tom Ben Max Sam Leo Finn Oscar Hugo Milo Toby Jack Felix Otto Rufus Percy Barnaby Pip Nico Theo "
    "Arlo Jasper Gus Walter Digby Henry Oliver George Charlie Teddy Rory"
).split()
NAMES_F = (
    "Lily Mia Anna Rosie Ella Nora Daisy Poppy Clara Hazel Ivy Molly Ruby Tilly Wendy Matilda Juniper "
    "Willow Penny Luna Freya Greta Olive Bea Dora Alice Emma Sophie Lucy Maya"
).split()

# kind: (plural, home, abilities, what it holds things with, gender or "")
KINDS = {
    "fox": ("foxes", "a warm den", "dig smell", "paws", ""),
    "rabbit": ("rabbits", "a snug burrow", "dig jump", "paws", ""),
    "mouse": ("mice", "a little hole under an old oak", "small", "paws", ""),
    "bear": ("bears", "a big cave", "strong smell", "paws", ""),
    "owl": ("owls", "a hollow tree", "fly wise", "wings", ""),
    "frog": ("frogs", "a green pond", "swim jump", "feet", ""),
    "squirrel": ("squirrels", "a tall tree", "climb small", "paws", ""),
    "hedgehog": ("hedgehogs", "a nest of leaves", "small smell", "paws", ""),
    "duck": ("ducks", "a nest by the lake", "swim fly", "wings", ""),
    "otter": ("otters", "a little house by the river", "swim", "paws", ""),
    "badger": ("badgers", "a hole in the hill", "dig strong", "paws", ""),
    "beaver": ("beavers", "a lodge on the river", "swim build", "paws", ""),
    "turtle": ("turtles", "a quiet spot by the pond", "swim wise", "feet", ""),
    "lamb": ("lambs", "a small barn", "", "hooves", ""),
    "dog": ("dogs", "a little red house", "smell dig", "paws", ""),
    "puppy": ("puppies", "a basket by the door", "smell dig", "paws", ""),
    "cat": ("cats", "a house with a blue door", "climb", "paws", ""),
    "kitten": ("kittens", "a basket by the fire", "climb small", "paws", ""),
    "pony": ("ponies", "a stable", "strong", "hooves", ""),
    "horse": ("horses", "a big stable", "strong", "hooves", ""),
    "goat": ("goats", "a shed on the hill", "climb", "hooves", ""),
    "mole": ("moles", "a tunnel under a garden", "dig small", "paws", ""),
    "sparrow": ("sparrows", "a nest in an apple tree", "fly small", "wings", ""),
    "crow": ("crows", "a nest in an old elm", "fly wise", "wings", ""),
    "goose": ("geese", "a little pen near the pond", "swim fly", "wings", ""),
    "hen": ("hens", "a warm coop", "", "wings", "f"),
    "pig": ("pigs", "a muddy pen", "dig smell", "feet", ""),
    "cow": ("cows", "a large barn", "strong", "hooves", ""),
    "donkey": ("donkeys", "a shed by the road", "strong", "hooves", ""),
    "elephant": ("elephants", "a wide green plain", "strong", "feet", ""),
    "monkey": ("monkeys", "a tree full of fruit", "climb", "hands", ""),
    "lion": ("lions", "a sunny cave", "strong", "paws", ""),
    "tiger": ("tigers", "a cave behind a waterfall", "strong swim", "paws", ""),
    "panda": ("pandas", "a forest of tall bamboo", "climb", "paws", ""),
    "koala": ("koalas", "a sleepy old tree", "climb", "paws", ""),
    "penguin": ("penguins", "a little house of snow", "swim", "wings", ""),
    "seal": ("seals", "a flat rock by the sea", "swim", "feet", ""),
    "wolf": ("wolves", "a den between two rocks", "smell strong", "paws", ""),
    "deer": ("deer", "a quiet part of the woods", "jump", "hooves", ""),
    "swan": ("swans", "an island in the lake", "swim fly", "wings", ""),
    "parrot": ("parrots", "a tree with red leaves", "fly", "wings", ""),
    "bee": ("bees", "a hive in a garden", "fly small", "wings", ""),
    "ant": ("ants", "a small hill of sand", "small build", "feet", ""),
    "snail": ("snails", "a flower pot", "small", "", ""),
    "dragon": ("dragons", "a cave on a mountain", "fly strong", "wings", ""),
    "robot": ("robots", "a shop full of clocks", "strong build", "hands", ""),
    "girl": ("girls", "a small white house", "build", "hands", "f"),
    "boy": ("boys", "a house with a green roof", "build", "hands", "m"),
    "princess": ("princesses", "a castle", "wise", "hands", "f"),
    "prince": ("princes", "a castle with tall towers", "strong", "hands", "m"),
    "farmer": ("farmers", "a farm house", "strong build", "hands", ""),
    "baker": ("bakers", "a house that smelled of bread", "wise", "hands", ""),
    "sailor": ("sailors", "a house near the harbor", "swim build", "hands", ""),
    "wizard": ("wizards", "a crooked tower", "wise", "hands", "m"),
    "witch": ("witches", "a crooked little house", "wise fly", "hands", "f"),
    "knight": ("knights", "an old stone house", "strong", "hands", ""),
    "giant": ("giants", "a cave as big as a church", "strong", "hands", ""),
    "fairy": ("fairies", "a house made of petals", "fly small", "hands", ""),
}
PEOPLE = {
    "girl", "boy", "princess", "prince", "farmer", "baker", "sailor", "wizard", "witch", "knight",
    "giant", "fairy", "robot",
}
SWIMMERS = {k for k, v in KINDS.items() if "swim" in v[2]}
BIRDS = {k for k, v in KINDS.items() if "fly" in v[2]}

# Rarer words: a share of the stories uses them, so that the model learns to copy what it seldom saw.
RARE_M = (
    "Adam Albert Alex Andy Archie Basil Bert Boris Bruno Caleb Carl Chip Dan David Dexter Ed Eli Elon "
    "Ernie Ethan Frank Fred Gavin Grok Harry Igor Isaac Ivan Jake James Jim Joe John Karl Ken Kurt Lars Liam "
    "Louis Luke Mark Marvin Mike Moritz Nate Ned Noah Norman Omar Paul Pedro Peter Quentin Ralph Ray "
    "Robin Roy Sven Ted Tim Tobias Ugo Victor Vincent Will Yuri Zack Zeb"
).split()
RARE_F = (
    "Ada Agnes Amy Annie April Astrid Ava Bella Betty Bonnie Carla Cleo Cora Dolly Edith Elsa Emily "
    "Erin Eva Eve Fay Fiona Flora Gina Gloria Grace Hannah Heidi Helen Holly Ida Ines Iris Jane Jill Josie "
    "Julia June Kate Kim Kira Laura Lena Lisa Lola Lotta Mabel Mary Maud Minnie Mona Nancy Nina Oona Pam "
    "Pearl Petra Queenie Rita Rosa Sally Sara Stella Susie Tess Tina Una Vera Viola Wilma Yara Zoe"
).split()
RARE_KINDS = {
    "camel": "camels", "zebra": "zebras", "giraffe": "giraffes", "hippo": "hippos", "kangaroo": "kangaroos",
    "llama": "llamas", "sheep": "sheep", "rooster": "roosters", "chicken": "chickens", "crab": "crabs",
    "whale": "whales", "dolphin": "dolphins", "octopus": "octopuses", "fish": "fish", "lizard": "lizards",
    "snake": "snakes", "crocodile": "crocodiles", "butterfly": "butterflies", "spider": "spiders",
    "beetle": "beetles", "ladybug": "ladybugs", "caterpillar": "caterpillars", "raccoon": "raccoons",
    "moose": "moose", "bat": "bats", "raven": "ravens", "robin": "robins", "stork": "storks", "bunny": "bunnies",
    "calf": "calves", "dinosaur": "dinosaurs", "unicorn": "unicorns", "monster": "monsters", "ghost": "ghosts",
    "mermaid": "mermaids", "troll": "trolls", "elf": "elves", "gnome": "gnomes", "snowman": "snowmen",
    "pirate": "pirates", "doctor": "doctors", "teacher": "teachers", "painter": "painters", "fisherman": "fishermen",
    "shepherd": "shepherds", "tailor": "tailors", "king": "kings", "queen": "queens", "astronaut": "astronauts",
    "cook": "cooks", "gardener": "gardeners", "woman": "women", "man": "men", "clown": "clowns", "walrus": "walruses",
    "hamster": "hamsters", "toad": "toads", "weasel": "weasels", "lynx": "lynxes", "rhino": "rhinos",
}
RARE_GENDER = {"queen": "f", "woman": "f", "mermaid": "f", "king": "m", "man": "m", "fisherman": "m", "rooster": "m", "snowman": "m"}
RARE_HOMES = [
    "a small house", "a round house", "a house on a hill", "a cozy home", "an old house", "a house of stone",
    "a hut", "a big house with many windows",
]
RARE_TOYS = [
    "doll", "wagon", "cookie", "teddy bear", "map", "clock", "watch", "mirror", "candle", "comb", "glove", "shoe",
    "boot", "mitten", "pencil", "letter", "box", "jar", "stone", "coin", "rope", "flag", "mask", "broom", "ladder",
    "violin", "trumpet", "guitar", "train", "rocket", "truck", "puzzle", "sweater", "shirt", "belt", "brush", "pot",
    "plate", "chair", "cart", "sail", "wand", "horn", "gem", "pearl", "bracelet", "lamp", "yo-yo", "bow tie", "purse",
]
ADJ = (
    "little young clever curious shy gentle cheerful quiet brave kind playful sleepy friendly careful "
    "lazy funny hungry proud polite merry"
).split()
SIZES = "small tiny big old young little".split()

PLACES = [
    "in the forest", "in a small village", "at the edge of the woods", "in a green valley",
    "on a farm near the hills", "in a sunny meadow", "near the sea", "in a quiet town",
    "at the foot of a tall mountain", "on the bank of a wide river", "near a blue lake",
    "in a land far away", "on a little island", "at the end of a long road", "beside a field of flowers",
    "behind the old mill",
]
SPOTS = [
    "the old bridge", "the tall oak tree", "the big rock", "the river", "the berry bushes",
    "the garden gate", "the pond", "the mill", "the stone wall", "the hollow log", "the well",
    "the apple tree", "the barn", "the waterfall", "the bakery", "the red fence", "the old tower",
    "the willow tree",
]
COLORS = "red blue green yellow golden silver white purple orange brown pink black".split()
# Things a character can own, wear or carry; every one takes a colour and "it".
TOYS = [
    "ball", "kite", "drum", "hat", "scarf", "lantern", "whistle", "bell", "button", "blanket", "ribbon",
    "spinning top", "music box", "crown", "spoon", "marble", "key", "umbrella", "teapot", "basket",
    "book", "flute", "cup", "cap", "toy boat", "paintbrush", "pillow", "feather", "ring", "bucket",
    "coat", "sock", "backpack", "necklace", "balloon", "shell",
]
ROUND = {"ball", "drum", "button", "spinning top", "marble", "ring", "bucket", "bell"}
LIGHT = {"kite", "hat", "scarf", "ribbon", "umbrella", "blanket", "balloon", "feather", "cap", "sock"}
SHINY = {"bell", "button", "spoon", "key", "ring", "necklace", "crown", "whistle", "marble", "cup"}
FOODS = [
    "apple pie", "honey cake", "carrot soup", "warm bread", "corn soup", "porridge", "cheese",
    "chocolate cake", "strawberry jam", "plum pudding", "pumpkin soup", "banana bread", "rice pudding",
    "vegetable stew",
]
FRUITS = ["berries", "apples", "plums", "nuts", "pears", "cherries", "carrots", "strawberries", "peas", "tomatoes"]
FLOWERS = ["daisy", "rose", "tulip", "sunflower", "bluebell", "poppy"]
RELS = {
    "mother": "f", "father": "m", "grandmother": "f", "grandfather": "m", "big sister": "f",
    "big brother": "m", "aunt": "f", "uncle": "m",
}
HOBBIES = [
    "count the clouds", "run and jump", "sing songs", "look for shells", "read books", "draw pictures",
    "play hide and seek", "sit in the sun", "tell jokes", "pick flowers", "climb rocks", "watch the boats",
    "dance in the rain", "listen to the birds", "collect stones", "take long walks",
]
NUMS = ["two", "three", "four", "five", "six", "seven", "ten"]
# weather key: sentences
WEATHER = {
    "sunny": [
        "The sun was shining.", "It was a warm spring day.", "The sky was clear and blue.",
        "It was a hot summer day.", "The morning was bright and warm.", "Bees hummed in the grass.",
    ],
    "windy": [
        "A strong wind was blowing.", "It was a windy autumn day.", "The wind shook the trees.",
        "Dry leaves danced in the wind.",
    ],
    "rainy": [
        "It was raining.", "Gray clouds filled the sky.", "Rain fell on the roof.", "It was a wet, gray day.",
    ],
    "snowy": [
        "Snow covered the ground.", "It was a cold winter morning.", "Soft snow was falling.",
        "Ice hung from the trees.",
    ],
    "foggy": ["A thick fog covered everything.", "It was a gray, foggy morning."],
    "night": ["The moon was bright.", "It was a quiet night.", "The stars were out."],
}
