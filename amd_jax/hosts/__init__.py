"""The processes of one run: how they meet, what has to be alike in them, what happens when one is gone."""
