"""Sentences as hosts say them, in ads and out of them, to fit the classifier of host-read ads. All are made up."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

BRANDS = ("Halden", "Murrowby", "Quillfast", "Nestora", "Brightpan", "Veloura", "Tallowmill", "Okari", "Pennywise Labs")
PRODUCTS = (
    ("mattress", "sleep", "wake up without an aching back", "hundred nights"),
    ("VPN", "privacy online", "keep trackers off your laptop", "thirty days"),
    ("meal kit", "dinner", "cook something decent on a weeknight", "first three boxes"),
    ("hiring site", "hiring", "find someone qualified within a day", "first job post"),
    ("budgeting app", "money", "see where every euro goes", "two months"),
    ("audiobook service", "reading", "finish books while you do the dishes", "first title"),
    ("online therapy service", "mental health", "talk to somebody from your sofa", "first session"),
    ("razor subscription", "shaving", "stop paying for blades you do not need", "starter set"),
    ("website builder", "your website", "put a shop online in an afternoon", "fourteen days"),
    ("language app", "learning a language", "order coffee without pointing", "first week"),
    ("coffee club", "coffee", "drink something that was roasted on Tuesday", "first bag"),
    ("electric toothbrush", "your teeth", "brush properly for once", "spare head"),
)
AD = (
    "This episode is brought to you by {brand}.",
    "Support for today's show comes from {brand}, the {product} I actually use.",
    "I want to tell you about our sponsor, {brand}.",
    "Let me take a quick break to talk about {brand}.",
    "If you have been thinking about {topic}, you should try {brand}.",
    "{brand} is a {product} that helps you {benefit}.",
    "I have been using {brand} for three months now and I love it.",
    "With {brand} you can {benefit}, and it takes five minutes to set up.",
    "They make it so easy to {benefit}.",
    "My wife was sceptical about a {product}, and now she will not give it back.",
    "And right now listeners of this show get twenty percent off.",
    "Go to {brand} dot com slash show and use the code LISTEN at checkout.",
    "That is {brand} dot com slash podcast for {offer} free.",
    "Use promo code {brand} to get {offer} on the house.",
    "There is a money back guarantee, so you really have nothing to lose.",
    "Shipping is free and you can cancel whenever you like.",
    "Sign up today and the {offer} is on them.",
    "Click the link in the show notes to claim your discount.",
    "Thanks to {brand} for supporting the podcast.",
    "Once again, that is {brand} dot com, promo code SHOW.",
    "No contracts, no hidden fees, just a better {product}.",
    "Join over a million people who trust {brand} with {topic}.",
    "And now, back to the show.",
    "You can also support us directly on Patreon for five dollars a month.",
    "Our live tour tickets go on sale this Friday, so grab yours before they sell out.",
    "Get your first month for free when you go through our link.",
    "We are taking a short break, and while we do, a few words about {brand}.",
    "You have heard me go on about my {product} before, and I am going to do it again.",
    "What I like best is that it works on the first try.",
    "It arrived in two days, in a box the size of a toaster.",
    "I gave one to my sister and now she asks me for another every Christmas.",
    "The app is simple enough that my father uses it.",
    "Ours has lasted four winters and still looks new.",
    "They have a plan for every budget, starting at nine dollars a month.",
    "You can try it at home, and if you don't like it they pick it up again.",
    "Over ten thousand five star reviews can't be wrong.",
    "It tastes good, it is good for you, and it is on your doorstep by noon.",
    "They use only organic cotton, and everything is made in Portugal.",
    "I put it on in the morning and forget about it.",
    "Whether you are a beginner or a professional, they have something for you.",
    "So do yourself a favour and check them out.",
    "Just tell them that we sent you.",
    "Enter our name in the box when you pay, that is how they know you came from us.",
    "As a listener you get a special deal.",
    "That is an exclusive offer you will not find anywhere else.",
    "The offer ends at midnight on Sunday, so do not wait.",
    "Visit their website or stop by a store near you.",
    "They were kind enough to send us a sample.",
    "Every purchase helps us to keep making this programme.",
    "Become a member and get bonus episodes without any ads.",
    "We have new shirts in the shop, and the mugs are back.",
    "Leave it to the experts at {brand}, so that you can {benefit}.",
    "Because life is too short for bad {topic}.",
    "Hiring, invoicing, payroll: {brand} does it all in one place.",
    "Stay to the end of the break for the code.",
    "{brand}: {topic}, made simple.",
    "Our partner this season is {brand}.",
    "Today's programme is made possible by {brand} and by listeners like you.",
    "A big thank you to our friends over at {brand}.",
    "Ask your doctor whether it is right for you.",
    "Individual results may vary.",
    "Batteries not included, and a minimum spend applies.",
    "Text the word SHOW to five five five to get started.",
    "Download the app and your first ride is free.",
    "Save thirty percent when you pay for the year.",
    "They will match you with somebody in less than forty eight hours.",
)
TALK = (
    "So the river had flooded twice that year before anybody thought of moving the mill.",
    "I think what people miss about the treaty is how tired both sides were.",
    "And she said, well, if nobody is going to write it down then I will.",
    "The experiment was repeated with forty mice and the effect went away.",
    "My grandmother used to keep the letters in a biscuit tin.",
    "You have to remember that in those days the train took eleven hours.",
    "He scored in the last minute and the whole street was out singing.",
    "The second movement is slower, and that is where the oboe comes in.",
    "What would you say to someone who is just starting out in the field?",
    "We were lost for about two hours and then we saw the lights of the harbour.",
    "The judge asked the witness to repeat the answer.",
    "There is a paper from last spring that argues the opposite.",
    "I never liked that ending, to be honest.",
    "Tell me about the day you decided to leave.",
    "The council voted seven to four against the bridge.",
    "They paid the workers in tokens that only the company store would take.",
    "Prices of bread doubled within a month and people took to the streets.",
    "The company went bankrupt because it sold every mattress at a loss.",
    "Subscription businesses live and die by how many people cancel in the first month.",
    "He was the sponsor of the bill, and he voted against it in the end.",
    "The discount was a trap: they raised the price the week before.",
    "Advertising changed when radio stations found out who was listening.",
    "Her lawyer argued that the free trial was never meant to be free.",
    "The code had been written by one person who had since retired.",
    "We moved the website to a new server and everything broke.",
    "A therapist once told me that boredom is just grief with its coat on.",
    "In our house dinner was at six and you did not leave the table early.",
    "The app collects your location even when you tell it not to.",
    "Coffee came to the city with the merchants and it never left.",
    "The first order of business was to find out who had the keys.",
    "I did not sleep well, and neither did the dog.",
    "When I learnt the language I was embarrassed every single day.",
    "Their razors were copied from a German patent.",
    "Let us talk about the budget that parliament passed on Thursday.",
    "We got the job because nobody else had applied.",
    "The supporters of the club bought it themselves in the end.",
    "There was a coupon in every newspaper during the war, for sugar and for coal.",
    "It is a good product, but the company does not understand who buys it.",
    "Reviewers loved the headphones and hated the case.",
    "The guarantee covered the roof but not the walls.",
    "She trusted him with her money, which was the mistake.",
    "I am going to read you a passage from the second chapter.",
    "So that is how the volcano got its name.",
    "Right, next question, this one is from a listener in Leeds.",
    "Welcome to the programme, it is good to have you here.",
    "Thank you all for listening, and we will see you next week.",
    "And that brings us to the year everything went wrong.",
    "You could hear the ice cracking from the kitchen.",
    "Most of the cells die within an hour, but some of them do not.",
    "He laughed, and then he asked me whether I was serious.",
    "I put the kettle on and waited for the telephone.",
    "They were kind enough to let us into the archive.",
    "My sister still has the scar from that winter.",
    "It took two days to cross the lake, and most of the food was spoilt.",
    "Ask any historian and they will give you a different date.",
    "The results varied from one village to the next.",
    "Over ten thousand people signed the petition.",
    "What I like best about her films is the sound.",
    "He opened a shop in Lisbon and lost it in the earthquake.",
    "The box was the size of a toaster and nobody knew what was inside.",
    "We tried it at home in the kitchen sink, and it nearly worked.",
    "They picked a captain who had never been to sea.",
    "The offer from the other club came at midnight on Sunday.",
    "Every member of the family had a different version of the story.",
    "It was cheap, it was ugly, and it changed the way people cooked.",
    "The doctors said that he would never play again.",
    "You can visit the house today, it is a museum now.",
    "She made the shirts herself, at night, by candlelight.",
    "The battery was invented twice, by two men who hated each other.",
    "Let us come back to what you said about fear.",
    "It is a very simple idea, and that is why nobody believed it.",
    "They matched the fingerprints in less than forty eight hours.",
    "I am a beginner, I have only been doing this for thirty years.",
    "Life was too short for philosophy, so he became a baker.",
)


@dataclass(frozen=True)
class Passage:
    """Consecutive sentences, and which of them are of an ad."""

    texts: tuple[str, ...]
    ad: tuple[bool, ...]


def passages(part: str, seed: int, count: int = 300) -> list[Passage]:
    """Talk with an ad in most of them. `part` is "fit" or "held-out": brands, products, and sentences are split."""
    held = part == "held-out"
    rng = np.random.default_rng((seed, held))

    def side(values: tuple, every: int = 3) -> list:
        return [v for n, v in enumerate(values) if (n % every == 0) == held]

    brands, products, ads, talks = side(BRANDS), side(PRODUCTS), side(AD), side(TALK)
    made = []
    for number in range(count):
        before = [str(s) for s in rng.choice(talks, size=int(rng.integers(3, 7)))]
        after = [str(s) for s in rng.choice(talks, size=int(rng.integers(3, 7)))]
        said: list[str] = []
        if number % 4:
            brand = str(rng.choice(brands))
            product, topic, benefit, offer = products[int(rng.integers(len(products)))]
            chosen = sorted(rng.choice(len(ads), size=min(len(ads), int(rng.integers(4, 8))), replace=False))
            words = {"brand": brand, "product": product, "topic": topic, "benefit": benefit, "offer": offer}
            said = [ads[int(i)].format(**words) for i in chosen]
        texts = (*before, *said, *after)
        ad = (*(False for _ in before), *(True for _ in said), *(False for _ in after))
        made.append(Passage(texts, ad))
    return made
