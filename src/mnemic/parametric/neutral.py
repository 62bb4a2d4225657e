"""Text and questions that have nothing to do with anybody's memory: what an adapter must leave alone.

The gate measures on one text, training is held back by another.
"""

from __future__ import annotations

from typing import Final

NEUTRAL: Final = """\
Rivers begin in high ground, where rain and melting snow collect in small streams. The streams join, and the
water runs downhill until it reaches a lake or the sea. On its way it carries sand and stones, and over
thousands of years it cuts valleys into rock. Where the land is flat the river slows down, winds from side
to side and drops what it carries, so that the soil of its plains is deep and good for farming. Most of the
oldest cities were built on such plains.

A bicycle stays upright because its rider steers into the direction in which it begins to fall. At walking
pace this takes effort; at higher speed the front wheel does most of the work by itself. The first machines
had no pedals at all, and people pushed them along with their feet. Chains, brakes and tyres filled with air
came later, and by the end of the nineteenth century the bicycle looked much as it does today.

Bread is made from flour, water and salt, and something that makes the dough rise. Yeast is a fungus that eats
the sugar in the flour and gives off gas, which is caught in the dough as bubbles. When the loaf is baked the
gas expands, the starch sets and the crust turns brown. Dough that is left to stand for a night tastes better,
because bacteria have had time to make acids.

The moon turns around the earth in a little more than twenty-seven days and always shows us the same side. Its
light is that of the sun, and its phases depend on how much of the lit half we can see. It raises the tides:
water on the near side is pulled a little more strongly than the earth itself, and water on the far side a
little less, so there are two high tides a day along most coasts.

A library lends books to people who bring them back. Each book has a number that says where it stands, and a
catalogue tells the reader which number to look for. Before printing, every copy was written by hand, and a
library of a few hundred volumes was a treasure. Today a small town may own a hundred thousand, and most of
what was ever printed can be found without leaving the house.

Trees grow a new ring of wood each year, wide in a good year and narrow in a dry one. By comparing the rings
of living trees with those in old beams, people have put together calendars that go back more than ten
thousand years. The wood of a beam says when the tree was cut, and often where it stood.
"""
KEPT: Final = """\
Glass is made by melting sand together with soda and lime. Pure sand melts only at a very high
temperature; the soda lowers it, and the lime keeps the glass from dissolving in water. While it is
hot the mass can be blown, poured or drawn into sheets. For large windows it is floated on a bath of
molten tin, which gives it two smooth sides without any polishing.

In winter many birds fly south, where the days are longer and there is more to eat. They find their
way by the sun and the stars, and some of them sense the magnetic field of the earth. Young birds of
several kinds make their first journey alone. Storks do not like to cross the sea, because there is
no rising warm air above it to carry them, and so they fly around it on both sides.

The rules of football were written down in England in 1863. Before that each school had its own, and
when two of them played, they first had to agree whether the ball might be carried. Those who wanted
to carry it left, and their game became rugby. The number of players was fixed later, and goals had
a tape before they had a bar.

Salt was once so valuable that towns grew rich on it. It was boiled out of brine or dug from mines,
and carried far inland on roads that are still named after it. Meat and fish were kept in it through
the winter. Today most of the salt that is produced is used by the chemical industry, and only a
small part of it is eaten.
"""
REHEARSED: Final = (
    "What is the capital of France?",
    "Write one sentence about the sea.",
    "How many days are in a week?",
    "What do bees make?",
    "Hello! How are you?",
    "Explain what a bicycle is.",
    "What colour is the sky on a clear day?",
    "Give me a tip for sleeping better.",
    "Who wrote Hamlet?",
    "What is two plus three?",
    "Name an animal that lives in water.",
    "Tell me a short story about a dog.",
    "Why does ice float?",
    "What can I cook with rice?",
    "Translate 'good morning' into Spanish.",
    "What is a library for?",
    "Thank you for your help.",
    "Which planet is closest to the sun?",
    "Do you know my name?",
    "What should I wear when it rains?",
    "List three kinds of fruit.",
    "What is the opposite of cold?",
    "How does a river begin?",
    "Can you remind me of something?",
)
