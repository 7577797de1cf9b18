"""Kernels that find the cheapest chain of snapshots, as lower envelopes of lines.

Between two neighbours i < j of a chain all reads start at i. Beside what the same reads cost without any snapshot, this
costs ``prices[i] + slopes[i] * (reads[j] - reads[i])``: a line in ``reads[j]``, the weight of all reads before j. The
cheapest chain up to j is therefore a minimum of lines, one for every possible last snapshot:

    totals[j] = min over i < j of totals[i] + prices[i] + slopes[i] * (reads[j] - reads[i])

Lines are kept relative to their own ``reads[i]``, so that large numbers do not cancel. Of equally cheap ones that with
the lowest i is taken, so both kernels choose the same chain. Node 0 is the initial state, the last node is the end.
"""

import numpy as np


def chain_by_queue(slopes, prices, reads, most, totals, bases, queue, since):
    """The cheapest chain without a limit to gaps; gives up, with -1 in ``bases[-1]``, after `most` moves in the queue.

    The queue has the lower envelope's lines by falling slope; ``since[k]`` is where its k-th becomes the lowest. A line
    goes between those less steep and those steeper, and pushes out neighbours that are lowest nowhere any more. Where
    slopes never rise this is the "convex hull trick": it goes last, nothing moves, and all takes O(n). Where they do,
    what lies behind its place moves, and `most` bounds that.
    """
    first, last, end, moves = 0, 0, len(slopes), 0
    totals[0], bases[0], bases[end], queue[0], since[0] = 0.0, -1, -1, 0, reads[0]
    for j in range(1, end + 1):
        here = reads[j]
        while first < last and since[first + 1] < here:
            first += 1
        i = queue[first]
        totals[j] = totals[i] + prices[i] + slopes[i] * (here - reads[i])
        if moves > most:
            break
        bases[j] = i
        # The new line begins at or above the lowest one: it is of use only if it is steeper.
        if j == end or slopes[j] >= slopes[i]:
            continue
        begin, slope = totals[j] + prices[j], slopes[j]
        before = last
        while slopes[queue[before]] <= slope:
            before -= 1
        after = before + 1
        moves += last - before
        if before < last:
            i, there = queue[before], since[after]
            if begin + slope * (there - here) >= totals[i] + prices[i] + slopes[i] * (there - reads[i]):
                continue  # lowest nowhere: not even where the two around it cross
        while True:
            i = queue[before]
            crossing = here + (begin - totals[i] - prices[i] - slopes[i] * (here - reads[i])) / (slopes[i] - slope)
            if before == first or crossing > since[before]:
                break
            before -= 1
        if crossing >= reads[end]:
            continue
        until = np.inf
        while after <= last:
            i = queue[after]
            if slopes[i] < slope:
                above = totals[i] + prices[i] + slopes[i] * (here - reads[i]) - begin
                until = here + above / (slope - slopes[i])
                if after == last or until < since[after + 1]:
                    break
            after += 1
        rest, place = last + 1 - after, before + 1
        if place < after:
            for at in range(rest):
                queue[place + 1 + at], since[place + 1 + at] = queue[after + at], since[after + at]
        else:
            for at in range(last, before, -1):
                queue[at + 1], since[at + 1] = queue[at], since[at]
        queue[place], since[place] = j, crossing
        last = place + rest
        if rest:
            since[place + 1] = until


def chain_by_tree(slopes, prices, reads, versions, reach, totals, bases, tree):
    """The cheapest chain whatever the slopes are, with neighbours at most `reach` versions apart.

    Versions are cut into blocks of `reach`: what node j may start at is the end of the block before its own, and the
    beginning of its own. The first part shrinks from left to right, so nodes take their lines from right to left;
    the second part grows from left to right. So lines are only ever added, to a Li Chao tree over the nodes of the
    block: each place keeps the line that is lowest in the middle of its span, and a line that lost goes on to the one
    half where it may be lower.

    `totals` is infinite at first, but 0 at node 0; it stays infinite where a chain has no way.
    """

    def height(i, j):
        return totals[i] + prices[i] + slopes[i] * (reads[j] - reads[i])

    def below(i, other, j):
        one, two = height(i, j), height(other, j)
        return one < two or (one == two and i < other)

    def add(line, left, right):
        place = 1
        while tree[place] >= 0:
            middle = (left + right) >> 1
            other = tree[place]
            if below(line, other, middle):
                tree[place], line, other = line, other, line
            if slopes[line] < slopes[other] and middle + 1 < right and below(line, other, right - 1):
                place, left = 2 * place + 1, middle + 1
            elif slopes[line] > slopes[other] and left < middle and below(line, other, left):
                place, right = 2 * place, middle
            else:
                return
        tree[place] = line

    def lowest(node, left, right):
        place, found, least = 1, -1, np.inf
        while left < right and tree[place] >= 0:
            line = tree[place]
            now = height(line, node)
            if now < least or (now == least and line < found):
                found, least = line, now
            middle = (left + right) >> 1
            if node == middle:
                break
            if node < middle:
                place, right = 2 * place, middle
            else:
                place, left = 2 * place + 1, middle + 1
        return found

    before = start = 0
    while start < len(reads):
        stop = start + 1
        while stop < len(reads) and versions[stop] // reach == versions[start] // reach:
            stop += 1
        for step in (-1, 1):
            for place in range(min(len(tree), 4 * (stop - start))):
                tree[place] = -1
            line = start - 1 if step < 0 else start
            for at in range(stop - start):
                node = stop - 1 - at if step < 0 else start + at
                while before <= line < node and versions[line] >= versions[node] - reach:
                    if totals[line] < np.inf:
                        add(line, start, stop)
                    line += step
                i = lowest(node, start, stop)
                if i >= 0 and height(i, node) < totals[node]:
                    totals[node], bases[node] = height(i, node), i
        before, start = start, stop


def chain_members(bases, member):
    """Mark the nodes of the chain that leads to the end."""
    node = bases[len(bases) - 1]
    while node > 0:
        member[node] = 1
        node = bases[node]
