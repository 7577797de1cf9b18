"""Kernels that find the cheapest chain of snapshots, as lower envelopes of lines.

Between two neighbours i < j of a chain all reads start at i. Beside what the same reads cost without any snapshot, this
costs ``prices[i] + slopes[i] * (reads[j] - reads[i])``: a line in ``reads[j]``, the weight of all reads before j. The
cheapest chain up to j is therefore a minimum of lines, one for every possible last snapshot:

    totals[j] = min over i < j of totals[i] + prices[i] + slopes[i] * (reads[j] - reads[i])

Lines are kept relative to their own ``reads[i]``, so that large numbers do not cancel. Of equally cheap ones that with
the lowest i is taken, so both kernels choose the same chain. Node 0 is the initial state, the last node is the end.
"""

from __future__ import annotations

import numpy as np


def chain_by_queue(slopes, prices, reads, most, totals, bases, queue, since):
    """The cheapest chain where most lines are steeper than those before; gives up after `most` moves of others.

    The queue has the lower envelope's lines by falling slope; ``since[k]`` is where its k-th becomes the lowest. A line
    that is steepest is put last and may take others' place (the "convex hull trick"), one between others moves those
    behind it. Where slopes never rise nothing moves, and each line comes and goes once. ``bases[-1]`` is -1 where it
    gave up.
    """
    first, last, end, moves = 0, 0, len(slopes), 0
    totals[0], bases[0], bases[end], queue[0], since[0] = 0.0, -1, -1, 0, reads[0]
    for j in range(1, end + 1):
        here = reads[j]
        while first < last and since[first + 1] < here:
            first += 1
        i = queue[first]
        total = totals[i] + prices[i] + slopes[i] * (here - reads[i])
        totals[j], bases[j] = total, i
        if j == end or moves > most:
            bases[end] = i if j == end else -1
            break
        # From here on j's line begins above the lowest one, so it must be steeper than that.
        slope = slopes[j]
        if slope >= slopes[i]:
            continue
        begin = totals[j] + prices[j]
        k = last
        while slopes[queue[k]] <= slope:
            k -= 1
        moves += last - k
        if k < last:
            i = queue[k]
            there = since[k + 1]
            if begin + slope * (there - here) >= totals[i] + prices[i] + slopes[i] * (there - reads[i]):
                continue
        after = k + 1
        while True:
            i = queue[k]
            above = begin - (totals[i] + prices[i] + slopes[i] * (here - reads[i]))
            crossing = here + above / (slopes[i] - slope)
            if k == first or crossing > since[k]:
                break
            k -= 1
        if crossing >= reads[end]:
            continue
        until = np.inf
        while after <= last:
            i = queue[after]
            # A line as steep is above this one, for it was where the line before it crosses this one's way.
            falls = slope - slopes[i]
            above = totals[i] + prices[i] + slopes[i] * (here - reads[i]) - begin
            until = here + above / falls if falls > 0.0 else np.inf
            if falls > 0.0 and (after == last or until < since[after + 1]):
                break
            after += 1
        count = last - after + 1
        if count and after < k + 2:
            for at in range(last, after - 1, -1):
                queue[at + 1], since[at + 1] = queue[at], since[at]
        elif after > k + 2:
            for at in range(count):
                queue[k + 2 + at], since[k + 2 + at] = queue[after + at], since[after + at]
        last = k + 1 + count
        queue[k + 1], since[k + 1] = j, crossing
        if count:
            since[k + 2] = until


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
