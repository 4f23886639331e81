"""From rows of an index to contents: windows of one content count once, by their best. Compiled."""

from __future__ import annotations

import numpy as np

from core.compiled import njit


@njit(nogil=True)
def collapse(scores, labels, content_of, total, hidden, k, contents, best, counts, settled):  # type: ignore[no-untyped-def]
    """Fills, for each query, the k best contents of the rows found, best first and equal scores by content.

    `scores` and `labels`: (queries, depth), best first, label -1 where nothing was found; `content_of`: content of each
    row, of `total` contents; `hidden`: whether a content is left out (bool, may be empty). `contents` (int32) and
    `best` (float32) are of shape (queries, k), `counts` says how many of them hold, and `settled` whether rows further
    down could not change them.
    """
    depth = scores.shape[1]
    found, value = np.empty(depth, np.int32), np.empty(depth, np.float32)
    # A mark a content would cost more than a short search; deep ones look contents up by it.
    marked = depth > 64
    last_query = np.full(total if marked else 0, -1, np.int64)
    for q in range(scores.shape[0]):
        size, seen = 0, 0
        for j in range(depth):
            label = labels[q, j]
            if label < 0:
                break
            seen += 1
            content = content_of[label]
            if hidden.size > 0 and hidden[content]:
                continue
            if marked:
                if last_query[content] == q:
                    continue
                last_query[content] = q
            else:
                known = False
                for i in range(size):
                    known |= found[i] == content
                if known:
                    continue
            # Rows come best first: only equal scores are out of the order of contents.
            at = size
            while at > 0 and value[at - 1] == scores[q, j] and found[at - 1] > content:
                found[at], value[at] = found[at - 1], value[at - 1]
                at -= 1
            found[at], value[at] = content, scores[q, j]
            size += 1
        kept = min(size, k)
        counts[q] = kept
        for j in range(kept):
            contents[q, j], best[q, j] = found[j], value[j]
        settled[q] = seen < depth or (size > k and value[k - 1] > scores[q, seen - 1])
