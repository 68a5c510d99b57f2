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
}

// instant returns the time of a stamp that comes after prev, the time of the
// previous row (zero for a first row). Where clocks go back an hour, that
// hour's times occur twice: a stamp there means the first occurrence unless
// prev is already past it. ok is false for a time that clocks skip when they go
// forward.
func (c *clocks) instant(s stamp, prev time.Time) (t time.Time, ok bool) {
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
		return time.Time{}, false
	}
	for _, u := range meant {
		t = time.Unix(u, nano).In(c.zone)
		if prev.IsZero() || t.After(prev) {
			return t, true
		}
	}
	return t, true
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

// candidates are the instants at which local time in the zone is wall: one, or
// around a change of clocks none or two.
func (c *clocks) candidates(wall int64) []int64 {
	const day = 86400
	var found []int64
	for _, near := range []int64{wall - day, wall, wall + day} {
		_, offset := time.Unix(near, 0).In(c.zone).Zone()
		u := wall - int64(offset)
		if _, at := time.Unix(u, 0).In(c.zone).Zone(); at == offset && !slices.Contains(found, u) {
			found = append(found, u)
		}
	}
	slices.Sort(found)
	if len(found) != 1 {
		return found
	}
	t := time.Unix(found[0], 0).In(c.zone)
	c.offset = wall - found[0]
	c.low, c.high = math.MinInt64, math.MaxInt64
	start, end := t.ZoneBounds()
	if !start.IsZero() {
		c.low = start.Unix() + c.offset + day
	}
	if !end.IsZero() {
		c.high = end.Unix() + c.offset - day
	}
	return found
}
