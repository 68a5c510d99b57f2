package data

import (
	"math"
	"slices"
	"time"
)

// clocks converts stamps into instants.
type clocks struct {
	zone  *time.Location // nil: stamps without an offset are UTC
	fixed map[int32]*time.Location

	// The zone's offset for local times in [low, high), where it is the only
	// possible one.
	low, high, offset int64

	days bool // stamps are days: one begins when clocks skip its midnight
}

// instant returns the time of a stamp that comes after prev, the time of the
// previous row (zero for a first row), which came step after the row before it (0
// if there is none). Where clocks go back an hour, that hour's times occur twice: a
// stamp there means the occurrence that is a step after prev, otherwise the first
// unless prev is already past it. ok is false for a time that clocks skip when they
// go forward.
func (c *clocks) instant(s stamp, prev time.Time, step time.Duration) (t time.Time, ok bool) {
	nano := int64(s.nano)
	switch {
	case s.offset != noOffset:
		return time.Unix(s.wall-int64(s.offset), nano).In(c.place(s.offset)), true
	case c.zone == nil:
		return time.Unix(s.wall, nano).UTC(), true
	case s.wall >= c.low && s.wall < c.high:
		return time.Unix(s.wall-c.offset, nano).In(c.zone), true
	}
	meant := c.candidates(s.wall)
	if len(meant) == 0 {
		t, _ := localTime(s.wall, 0, c.zone)
		return t, c.days && civilDay(t) == floorDiv(s.wall, daySeconds)
	}
	for _, u := range meant {
		if t = time.Unix(u, nano).In(c.zone); step > 0 && t.Sub(prev) == step {
			return t, true
		}
	}
	for _, u := range meant {
		t = time.Unix(u, nano).In(c.zone)
		if prev.IsZero() || t.After(prev) {
			return t, true
		}
	}
	return t, true
}

// inZone reports whether all stamps have the offset of a zone at their time.
func inZone(stamps []stamp, zone *time.Location) bool {
	return !slices.ContainsFunc(stamps, func(s stamp) bool {
		_, offset := time.Unix(s.wall-int64(s.offset), 0).In(zone).Zone()
		return offset != int(s.offset)
	})
}

// place returns the zone in which times with an offset are shown.
func (c *clocks) place(offset int32) *time.Location {
	if c.zone != nil {
		return c.zone
	}
	if offset == 0 {
		return time.UTC
	}
	if c.fixed == nil {
		c.fixed = map[int32]*time.Location{}
	}
	if c.fixed[offset] == nil {
		c.fixed[offset] = time.FixedZone("", int(offset))
	}
	return c.fixed[offset]
}

// candidates are the instants at which local time in the zone is wall. It
// remembers for which local times the zone has the same offset.
func (c *clocks) candidates(wall int64) []int64 {
	found := instantsAt(wall, c.zone)
	if len(found) != 1 {
		return found
	}
	t := time.Unix(found[0], 0).In(c.zone)
	c.offset = wall - found[0]
	c.low, c.high = math.MinInt64, math.MaxInt64
	start, end := t.ZoneBounds()
	if !start.IsZero() {
		c.low = start.Unix() + c.offset + daySeconds
	}
	if !end.IsZero() {
		c.high = end.Unix() + c.offset - daySeconds
	}
	return found
}

// instantsAt returns the instants at which local time in a zone is wall: one, or
// around a change of clocks none or two.
func instantsAt(wall int64, zone *time.Location) []int64 {
	var found []int64
	for _, near := range []int64{wall - daySeconds, wall, wall + daySeconds} {
		_, offset := time.Unix(near, 0).In(zone).Zone()
		u := wall - int64(offset)
		if _, at := time.Unix(u, 0).In(zone).Zone(); at == offset && !slices.Contains(found, u) {
			found = append(found, u)
		}
	}
	slices.Sort(found)
	return found
}

// localTime returns the first instant at which local time in a zone is wall. If
// clocks skip it, it is the instant at which they do, and shown is false.
func localTime(wall int64, nano int, zone *time.Location) (t time.Time, shown bool) {
	if zone == time.UTC {
		return time.Unix(wall, int64(nano)).UTC(), true
	}
	if found := instantsAt(wall, zone); len(found) > 0 {
		return time.Unix(found[0], int64(nano)).In(zone), true
	}
	_, before := time.Unix(wall-daySeconds, 0).In(zone).Zone()
	start, _ := time.Unix(wall-int64(before), 0).In(zone).ZoneBounds()
	return start, false
}

// skip is local times, in seconds, that clocks skip: from, up to but not including to.
type skip struct{ from, to int64 }

// skips returns what clocks skip after a, up to b.
func skips(a, b time.Time) (list []skip) {
	for {
		_, end := a.ZoneBounds()
		if end.IsZero() || end.After(b) {
			return list
		}
		if from, skipped := skippedBefore(end); skipped {
			list = append(list, skip{from, wallClock(end)})
		}
		a = end
	}
}

// skippedBefore returns the first local time that clocks skip at t, if they skip
// some.
func skippedBefore(t time.Time) (from int64, skipped bool) {
	start, _ := t.ZoneBounds()
	if !start.Equal(t) {
		return 0, false
	}
	_, before := t.Add(-1).Zone()
	from = t.Unix() + int64(before)
	return from, from < wallClock(t)
}
