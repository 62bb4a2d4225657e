"""Small worlds in which an agent must remember, in numpy; `gym.py` has them as gymnasium environments."""
