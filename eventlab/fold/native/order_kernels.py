"""Kernels about order: a table's rows by first touch, a queue's by age, a column by value, and runs merged into one."""

import numpy as np

from eventlab.fold.native.constants import HEAD, META

_LINK_NEXT = 1
_POOL_NEXT = 0


def keyed_order(links, width, meta, base, offsets, out):
    """Row numbers of every aggregate's rows in list order, shape (offsets[-1],). A row has `width` links."""
    for a in range(len(base) - 1):
        slot = meta[META * a + HEAD]
        for at in range(offsets[a], offsets[a + 1]):
            out[at] = base[a] + slot
            slot = links[(base[a] + slot) * width + _LINK_NEXT]


def queue_order(links, width, first, counts, key_offsets, base, out):
    """Row numbers of every queue's rows: by aggregate, by key, oldest first, shape (counts.sum(),)."""
    at = 0
    for a in range(len(base) - 1):
        for key in range(key_offsets[a], key_offsets[a + 1]):
            slot = first[key]
            for _ in range(counts[key]):
                out[at] = base[a] + slot
                at += 1
                slot = links[(base[a] + slot) * width + _POOL_NEXT]


def rows_until(values, sought, out):
    """One past the last of the ascending values at or below each of the ascending `sought`."""
    row, rows = 0, len(values)
    for at in range(len(sought)):
        value = sought[at]
        step = 1
        while row + step <= rows and values[row + step - 1] <= value:
            row += step
            step *= 2
        stop = min(row + step, rows)
        while row < stop:
            middle = (row + stop) >> 1
            if values[middle] <= value:
                row = middle + 1
            else:
                stop = middle
        out[at] = row


def merge_runs(
    timestamp, position, entry, cuts, bounds, times, rows, spare_times, spare_rows, merged_time, merged_entry, places
):
    """Merge runs of rows that each ascend by (timestamp, position): the sorted times, and the rows' entries in order.

    Windows of time are merged one after the other, so that the memory worked in stays in the processor's cache. Where a
    window's events were recorded in the order of their times, as most are, a row's position gives its place, in
    a fraction of the time. Elsewhere neighbours merge in pairs until one run is left, by timestamp alone, the lower row
    first; then rows of equal time are put in order of position. A pair merges from both ends at once, without a branch
    that depends on the data: two independent chains of comparisons take half the time of one.

    Parameters
    ----------
    timestamp, position, entry : int64 array, shape (rows,)
    cuts : int64 array, shape ((windows + 1) * runs,)
        Run r has the rows ``cuts[w * runs + r]:cuts[(w + 1) * runs + r]`` in window w. No time is in two windows.
    bounds : int64 array, shape (runs + 1,)
    times, rows, spare_times, spare_rows : int64 and int32 arrays, shape (rows of the largest window,)
        Space to work in.
    merged_time, merged_entry : int64 array, shape (rows,)
        The outcome.
    places : int64 array
        Where the first so many rows stand in it.
    """
    runs, one, done = len(bounds) - 1, np.uint64(1), 0
    for window in range(len(cuts) // runs - 1):
        count, low, high = 0, 2**63 - 1, -1
        for run in range(window * runs, (window + 1) * runs):
            for row in range(cuts[run], cuts[run + runs]):
                low, high = min(low, position[row]), max(high, position[row])
                count += 1
        span = high - low + 1
        recorded_in_order = span <= min(4 * count, len(spare_times))
        if recorded_in_order:
            for at in range(span):
                spare_times[at] = -1
            for run in range(window * runs, (window + 1) * runs):
                for row in range(cuts[run], cuts[run + runs]):
                    spare_times[position[row] - low] = row
            place, previous = done, -(2**63)
            for at in range(span):
                row = spare_times[at]
                if row >= 0:
                    time = timestamp[row]
                    recorded_in_order &= previous <= time
                    previous = merged_time[place] = time
                    merged_entry[place] = entry[row]
                    if row < len(places):
                        places[row] = place
                    place += 1
        if recorded_in_order:
            done += count
            continue
        count = left = 0
        for run in range(window * runs, (window + 1) * runs):
            bounds[left] = count
            left += cuts[run] < cuts[run + runs]
            for row in range(cuts[run], cuts[run + runs]):
                times[count] = timestamp[row]
                rows[count] = row
                count += 1
        bounds[left] = count
        while left > 1:
            several, left = left, 0
            for run in range(0, several, 2):
                first, middle, end = bounds[run], bounds[min(run + 1, several)], bounds[min(run + 2, several)]
                i, j, out = np.uint64(first), np.uint64(middle), np.uint64(first)
                i_end, j_end, back = np.uint64(middle), np.uint64(end), np.uint64(end) - one
                apart = middle == end or times[middle - 1] <= times[middle]
                # As many steps from both ends as neither side can run out in.
                steps = np.uint64(0) if apart else min(i_end - i, j_end - j) >> one
                while steps > np.uint64(0):
                    for _ in range(steps):
                        low, high = times[i], times[j]
                        later = high < low
                        spare_times[out] = high if later else low
                        spare_rows[out] = rows[j if later else i]
                        out += one
                        j += np.uint64(later)
                        i += one - np.uint64(later)
                        low, high = times[i_end - one], times[j_end - one]
                        later = low > high
                        spare_times[back] = low if later else high
                        spare_rows[back] = rows[(i_end if later else j_end) - one]
                        back -= one
                        i_end -= np.uint64(later)
                        j_end -= one - np.uint64(later)
                    steps = min(i_end - i, j_end - j) >> one
                while i < i_end or j < j_end:
                    later = i == i_end or (j < j_end and not apart and times[j] < times[i])
                    spare_times[out] = times[j if later else i]
                    spare_rows[out] = rows[j if later else i]
                    out += one
                    j += np.uint64(later)
                    i += one - np.uint64(later)
                bounds[left] = first
                left += 1
            bounds[left] = count
            times, spare_times = spare_times, times
            rows, spare_rows = spare_rows, rows
        first = 0
        while first < count:
            end = first + 1
            ordered = True
            while end < count and times[end] == times[first]:
                ordered = ordered and position[rows[end - 1]] < position[rows[end]]
                end += 1
            gap = 0 if ordered else end - first
            while gap > 1:  # a shell sort: rows of one time are mostly few, and sometimes very many
                gap = max(gap * 5 // 11, 1)
                for at in range(first + gap, end):
                    row, to = rows[at], at
                    while to >= first + gap and position[rows[to - gap]] > position[row]:
                        rows[to] = rows[to - gap]
                        to -= gap
                    rows[to] = row
            for at in range(first, end):
                merged_time[done + at] = times[at]
                merged_entry[done + at] = entry[rows[at]]
                if rows[at] < len(places):
                    places[rows[at]] = done + at
            first = end
        done += count
