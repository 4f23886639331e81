"""What is said and written in the demo. All of it was written for Earmark."""

from __future__ import annotations

SHOWS: dict[str, dict[str, str]] = {
    "show:kitchen": {
        "name": "The Patient Kitchen",
        "voice": "slt",
        "theme": "happy/happy_acoustic_1.opus",
        "intro": "Welcome to the Patient Kitchen, the show for people who let things take their time.",
        "outro": "That was the Patient Kitchen. Keep your oven warm, and see you next week.",
    },
    "show:shore": {
        "name": "Shoreline Notes",
        "voice": "rms",
        "theme": "calm/calm_acoustic_1.opus",
        "intro": "This is Shoreline Notes. We walk along the water and tell you what we find there.",
        "outro": "You heard Shoreline Notes. Mind the tide, and come back with dry feet.",
    },
    "show:wheels": {
        "name": "Two Wheels Enough",
        "voice": "kal16",
        "theme": "energetic/energetic_acoustic_1.opus",
        "intro": "Two Wheels Enough, a podcast about bicycles and the people who refuse to stop riding them.",
        "outro": "Thanks for riding along with Two Wheels Enough. Check your tyres, and goodbye.",
    },
}

ADS = {
    "ad:lantern": "This episode is brought to you by Lantern Tea. One leaf, one cup, one quiet evening. Lantern Tea.",
    "ad:parcel": "Sending something heavy? Parcel Pigeon picks it up today and brings it tomorrow. Parcel Pigeon dot example.",
    "ad:ledger": "Tired of receipts in shoe boxes? Try Green Ledger, bookkeeping for people who would rather be outside.",
}

EPISODES: list[tuple[str, str, str]] = [
    (
        "show:kitchen",
        "Why bread needs a night",
        "A dough that rests in the cold for a night tastes of more than flour. The yeast slows down, but the bacteria do "
        "not, and the acids that they make give the crumb its flavour. Mix flour, water, salt and a very small piece of "
        "yeast in the evening. Fold it twice. Put it away and go to bed. In the morning the bowl has doubled, and all "
        "that is left for you to do is to shape it and to wait for the oven.",
    ),
    (
        "show:kitchen",
        "Beans from the day before",
        "Dry beans are the cheapest luxury in a kitchen. Cover them with cold water and a spoon of salt the day before. "
        "The salt softens the skins, whatever your grandmother said. Cook them gently, never at a rolling boil, with an "
        "onion and a bay leaf. They are done when you can blow on one and the skin wrinkles. Keep the broth. It is the "
        "best part, and it makes tomorrow's soup.",
    ),
    (
        "show:kitchen",
        "The slow onion",
        "An onion turns brown in ten minutes, and sweet in fifty. Cut six of them thinly, warm some butter in a heavy "
        "pot, and keep the flame low. For a long time nothing happens. Then the edges turn to gold, the kitchen smells "
        "of Sunday, and the heap that filled the pot has become a cup of jam. Put it on toast, into an omelette, or "
        "under a piece of fish.",
    ),
    (
        "show:shore",
        "How the tide keeps time",
        "The moon pulls at the water, and the water follows, but it is never in a hurry. Twice a day the sea comes up "
        "the beach and twice it goes away, a little later every day, because the moon has moved on while the earth was "
        "turning. In narrow bays the wave has nowhere to go but up. There the difference between high and low can be "
        "as tall as a house with four floors.",
    ),
    (
        "show:shore",
        "Reading the strandline",
        "After a storm the beach is a newspaper. The line of weed tells you how far the water came. Between the stems "
        "you find the egg cases of rays, which children call mermaids' purses, and pieces of glass that the sand has "
        "polished for years. Look for the small holes that worms make, and for the tracks of the plovers that hunt "
        "them at low water.",
    ),
    (
        "show:shore",
        "Fog over the harbour",
        "Warm air that drifts over cold water cannot keep its moisture. It lets it go as fog, and the harbour is gone "
        "within minutes. Sailors used to listen for bells and for the horn at the end of the pier. One long sound meant "
        "a ship that makes way, two long sounds a ship that lies still. Today a screen shows them all, and still the "
        "horn is blown, for those who have no screen.",
    ),
    (
        "show:wheels",
        "A chain that lasts",
        "Most chains do not wear out, they are ground to death by sand. Wipe yours after every wet ride. Put one drop "
        "of oil on every link, turn the pedals backwards, and then take away all the oil that you can see. What you "
        "cannot see is what does the work. A chain that is looked after will carry you twice around a small country "
        "before it needs to be replaced.",
    ),
    (
        "show:wheels",
        "Riding in the rain",
        "There is no bad weather for a bicycle, there are only short mudguards. Leave a little air out of the tyres, "
        "brake earlier than you think you must, and stay away from painted lines and from wet leaves. Wool keeps you "
        "warm when it is soaked, cotton does not. And when you arrive, somebody will ask whether you came by bicycle in "
        "this rain, and you will say yes as if it were nothing.",
    ),
    (
        "show:wheels",
        "The oldest hill in town",
        "Every town has a hill that everybody knows by its first name. Ours climbs past the church and the school and "
        "turns left where you least expect it. Start slowly, breathe through your mouth, and look at the road just in "
        "front of the wheel. At the top there is a bench with a view of the river. Nobody has ever sat on it without "
        "telling the next one how many gears they did not use.",
    ),
]

CHAPTERS: list[tuple[str, str]] = [
    (
        "The lighthouse keeper's ledger: one",
        "The keeper wrote down everything. The wind, the visibility, the ships that passed, and in a smaller hand what "
        "he had eaten. On the third of March he wrote that the lamp had burned without a flicker, that the soup was "
        "thin, and that somebody had knocked at the door of a tower that no path led to.",
    ),
    (
        "The lighthouse keeper's ledger: two",
        "He went down the hundred and twelve steps with a candle. Outside stood a woman in a coat that was too large "
        "for her. She said that she had come for the ledger. He told her that it was not finished. She sat down by the "
        "stove and answered that she could wait, and that waiting was what she did for a living.",
    ),
]

MOODS = {
    "calm": "slow and unhurried, made for reading or for falling asleep",
    "energetic": "driving and bright, with a beat that wants to be run to",
    "happy": "light-hearted and warm, like a good morning",
    "nostalgic": "wistful, a look back at a summer long ago",
    "tender": "soft and close, for a quiet conversation",
}
STYLES = {
    "acoustic": "played on acoustic instruments: guitar, piano and brushes",
    "electronic": "built from synthesisers, pads and a drum machine",
}

TEXTS: list[tuple[str, str, str, str]] = [  # id, language, title, text
    (
        "text:harbour",
        "en",
        "Harbour song",
        "The boats come home when the lamps are lit,\nthe nets are heavy, the songs are slow,\nand she who waits by the cold sea wall\ncounts every mast by the evening glow.",
    ),
    (
        "text:winter",
        "de",
        "Winterlied",
        "Der Schnee liegt still auf Dach und Baum,\ndie Nacht ist lang, der Weg ist weit,\nund durch die Fenster fällt ein Traum\nvon einer längst vergangenen Zeit.",
    ),
    (
        "text:pluie",
        "fr",
        "La pluie du dimanche",
        "La pluie tombe doucement sur les toits de la ville,\nles enfants regardent par la fenêtre,\net dans la cuisine le café sent bon le dimanche.",
    ),
    (
        "text:camino",
        "es",
        "El camino del río",
        "El río baja cantando entre las piedras,\nlleva las hojas del otoño hasta el mar,\ny yo camino despacio por la orilla\nsin saber adónde quiero llegar.",
    ),
    (
        "text:rant",
        "en",
        "Letter to my landlord (explicit)",
        "You greedy bastard, the damn heating has been broken for a month. Fix the bloody thing or go to hell.",
    ),
]
