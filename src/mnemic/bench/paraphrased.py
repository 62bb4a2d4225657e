"""Knowledge updates as people put them, and pairs that only look like them: a test of the rules' reach.

Both halves were written before any rule was changed for either. Rules were then written with `SEEN` in view;
`UNSEEN` was not looked at again, and stays a test of words that the rules' author did not have before them.
Before, after, question; names are filled in by `invented.one_of_each`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

Statements = Mapping[str, tuple[str, str, str]]
Pairs = Mapping[str, tuple[str, str]]

SEEN: Final[Statements] = {
    "home: left": ("I live in {a}.", "I left {a} in spring and now I'm in {b}.", "Where do I live?"),
    "home: keys": ("I live in {a}.", "Got the keys to our new flat in {b} yesterday!", "Where do I live?"),
    "home: gave up": ("I live in {a}.", "We gave up the house in {a}; {b} is home now.", "Where do I live?"),
    "home: traded": ("{p} lives in {a}.", "{p} traded {a} for {b} two months ago.", "Where does {p} live?"),
    "work: left for": ("I work at {a}.", "I left {a} for {b}.", "Where do I work?"),
    "work: signed": ("I work at {a}.", "I signed with {b} and start on Monday.", "Where do I work?"),
    "work: new job": ("{p} works at {a}.", "{p} is with {b} these days.", "Where does {p} work?"),
    "job": ("I work as a nurse.", "I retrained and I'm a carpenter now.", "What is my job?"),
    "partner": ("My girlfriend is {a}.", "{a} and I broke up. I'm seeing {b} now.", "Who is my girlfriend?"),
    "partner: vows": ("{p} is engaged to {a}.", "{p} tied the knot with {b}.", "Who is {p} married to?"),
    "name": ("My name is {a}.", "I changed my name to {b}.", "What is my name?"),
    "phone": ("My phone number is 555 {n}.", "New phone, new number: 555 {m}.", "What is my phone number?"),
    "email": ("My email is {x}@a.org", "Please write to me at {x}@b.org from now on.", "What is my email?"),
    "address": ("My address is {a} Street 5.", "My post goes to {b} Street 9 now.", "What is my address?"),
    "favourite": (
        *("My favourite band is {a}.", "I've come to prefer {b} to {a}."),
        "What is my favourite band?",
    ),
    "favourite: dish": (
        *("My favourite dish is {a}.", "{b} has replaced {a} as my favourite dish."),
        "What is my favourite dish?",
    ),
    "age": ("I'm {i} years old.", "It was my birthday: {j} candles on the cake!", "How old am I?"),
    "schedule": (
        *("My dentist appointment is on Tuesday.", "The dentist can't do Tuesday, so it's Friday instead."),
        "When is my dentist appointment?",
    ),
    "schedule: class": (
        *("My yoga class is on Monday.", "My yoga class got moved from Monday to Thursday."),
        "When is my yoga class?",
    ),
    "pet": ("My dog is called {a}.", "{a} passed away. Our new puppy is {b}.", "What is my dog called?"),
    "post": (
        *("The mayor of {e} is {a}.", "{a} stepped down as mayor of {e} and {b} took over."),
        "Who is the mayor of {e}?",
    ),
    "post: vote": (
        *("The president of {e} is {a}.", "{b} beat {a} and is now president of {e}."),
        "Who is the president of {e}?",
    ),
    "owner": ("{e} is owned by {a}.", "{e} changed hands: it belongs to {b} now.", "Who owns {e}?"),
    "seat": (
        *("The headquarters of {e} is located in {a}.", "{e} relocated its head office from {a} to {b}."),
        "Where is the headquarters of {e}?",
    ),
    "doctor": ("My doctor is {a}.", "{a} retired, so {b} is my doctor now.", "Who is my doctor?"),
    "capital": ("The capital of {e} is {a}.", "{e} made {b} its capital.", "What is the capital of {e}?"),
}
UNSEEN: Final[Statements] = {
    "home: swapped": ("I live in {a}.", "I swapped {a} for {b} this summer.", "Where do I live?"),
    "home: unpacked": (
        "I live in {a}.",
        "We've unpacked the last box in {b}, home at last.",
        "Where do I live?",
    ),
    "home: transfer": (
        "{p} lives in {a}.",
        "{p} upped sticks and went to live in {b}.",
        "Where does {p} live?",
    ),
    "home: lease": ("I live in {a}.", "My lease in {a} ran out, so I'm renting in {b}.", "Where do I live?"),
    "work: moved on": ("I work at {a}.", "I moved on from {a} and I'm at {b} now.", "Where do I work?"),
    "work: offer": (
        "I work at {a}.",
        "I accepted the offer from {b} and handed in my notice.",
        "Where do I work?",
    ),
    "work: poached": ("{p} works at {a}.", "{b} poached {p} from {a}.", "Where does {p} work?"),
    "job": ("I work as a teacher.", "I gave up teaching and became a baker.", "What is my job?"),
    "partner": ("My boyfriend is {a}.", "{a} is history; {b} is my boyfriend now.", "Who is my boyfriend?"),
    "partner: wedding": (
        "{p} is dating {a}.",
        "{p} and {b} got married on Saturday.",
        "Who is {p} married to?",
    ),
    "name": ("My name is {a}.", "I go by {b} now.", "What is my name?"),
    "phone": (
        "My phone number is 555 {n}.",
        "My old number is dead, use 555 {m}.",
        "What is my phone number?",
    ),
    "email": (
        "My email is {x}@a.org",
        "From today my mail address is {x}@b.org",
        "What is my email address?",
    ),
    "address": ("My address is {a} Road 5.", "Our new address: {b} Road 9.", "What is my address?"),
    "favourite": (
        *("My favourite singer is {a}.", "I like {b} better than {a} these days."),
        "Who is my favourite singer?",
    ),
    "favourite: film": (
        *("My favourite film is {a}.", "My new favourite film is {b}."),
        "What is my favourite film?",
    ),
    "age": ("I'm {i} years old.", "I just celebrated turning {j}.", "How old am I?"),
    "schedule": (
        *("My haircut is on Tuesday.", "Tuesday didn't work, my haircut is on Friday now."),
        "When is my haircut?",
    ),
    "schedule: lesson": (
        *("My piano lesson is on Monday.", "I swapped my piano lesson from Monday to Thursday."),
        "When is my piano lesson?",
    ),
    "pet": (
        "My cat is called {a}.",
        "We lost {a} last month and got a kitten called {b}.",
        "What is my cat called?",
    ),
    "post": (
        *("The director of {e} is {a}.", "{a} resigned as director of {e}; {b} is the new one."),
        "Who is the director of {e}?",
    ),
    "post: handed": (
        *("The captain of {e} is {a}.", "{a} handed the captaincy of {e} to {b}."),
        "Who is the captain of {e}?",
    ),
    "owner": ("{e} is owned by {a}.", "{e} now belongs to {b}.", "Who owns {e}?"),
    "seat": (
        *("The headquarters of {e} is located in {a}.", "{e} is now headquartered in {b}, not {a}."),
        "Where is the headquarters of {e}?",
    ),
    "doctor": (
        "My dentist is {a}.",
        "I go to {b} instead of {a}; she is my dentist now.",
        "Who is my dentist?",
    ),
    "capital": (
        "The capital of {e} is {a}.",
        "{e} moved its capital from {a} to {b}.",
        "What is the capital of {e}?",
    ),
}
# Near the above, and compatible: nothing may be ended.
SEEN_PAIRS: Final[Pairs] = {
    "left a place": ("I live in {a}.", "I left {b} early because of the rain."),
    "left for a trip": ("I live in {a}.", "I left {a} for {b} this morning, back on Sunday."),
    "left for lunch": ("I work at {a}.", "I left {e} for {b} for lunch."),
    "keys for another": ("I live in {a}.", "{p} got the keys to her new flat in {b}."),
    "traded cards": ("{p} lives in {a}.", "{p} traded {e} for {b} in the card game."),
    "signed a petition": ("I work at {a}.", "I signed with {b} on the petition."),
    "with for a day": ("{p} works at {a}.", "{p} is with {b} today."),
    "preference in part": ("My favourite band is {a}.", "I prefer {b} to {e}."),
    "preference of another": ("My favourite band is {a}.", "{p} prefers {b} to {a}."),
    "a second dog": ("My dog is called {a}.", "We have a second one, {b}."),
    "another's dog died": ("My dog is called {a}.", "{p}'s dog died. They have a new one, {b}."),
    "post elsewhere": ("The mayor of {a} is {p}.", "{p} stepped down as captain of {e} and {q} took over."),
    "a made capital": ("The capital of {a} is {b}.", "{a} made {e} its partner city."),
    "a meeting": ("My yoga class is on Monday.", "My choir got moved from Monday to Thursday."),
    "seeing a doctor": ("My girlfriend is {a}.", "I'm seeing {b} on Monday about my knee."),
    "reach a friend": ("My email is {x}@a.org", "Please write to {p} at {x}@b.org from now on."),
}
UNSEEN_PAIRS: Final[Pairs] = {
    "swapped shifts": ("I live in {a}.", "I swapped {e} for {b} on the quiz team."),
    "renting a car": ("I live in {a}.", "I'm renting a car in {b}."),
    "a talk at": ("I work at {a}.", "I'm at {b} now for a talk."),
    "an offer declined": ("I work at {a}.", "I declined the offer from {b}."),
    "poached another": ("{p} works at {a}.", "{b} poached {q} from {e}."),
    "better in part": ("My favourite singer is {a}.", "I like {b} better than {e} these days."),
    "better for another": ("My favourite singer is {a}.", "{p} likes {b} better than {a}."),
    "a neighbour's cat": ("My cat is called {a}.", "{p} lost {e} last month and got a kitten called {b}."),
    "a handed prize": ("The captain of {e} is {a}.", "{p} handed the cup of {e} to {b}."),
    "went by": ("My name is {a}.", "I go by {b} on the way to work."),
    "moved a branch": ("The capital of {e} is {a}.", "{e} moved its embassy from {a} to {b}."),
    "old address": ("My address is {a} Road 5.", "Our old address: {b} Road 9."),
    "another lesson": ("My piano lesson is on Monday.", "I swapped my shift from Monday to Thursday."),
    "turned a page": ("I'm {i} years old.", "I just celebrated turning the {j} ideas into one."),
    "resigned elsewhere": ("The director of {e} is {a}.", "{a} resigned as director of {b}."),
    "went for a day": ("{p} lives in {a}.", "{p} went to {b} for the day."),
}
