"""What a listener can skip: repeated segments and silence, as markers. Functions of fingerprints, transcripts and
segments given as tables."""
