package forecast

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/carousel-ml/carousel/data"
)

// clocks is what a model stores about the times of its table: how they were
// written and, where they had several offsets from UTC, which in each month.
// Hours and weekdays are inputs, so a later table's times must be those of the
// same clocks.
type clocks struct {
	data.TimeStyle
	Months [12][]string `json:"months"` // the offsets seen, by month; empty unless they vary
}

// clocksOf returns the clocks of a table.
func clocksOf(panel *data.Panel) clocks {
	c := clocks{TimeStyle: panel.Style}
	if c.Offset == data.VaryingOffsets && c.Zone == "" {
		c.Months = offsetsByMonth(panel)
	}
	return c
}

func offsetsByMonth(panel *data.Panel) (months [12][]string) {
	for _, s := range panel.Series {
		for i, t := range s.Time {
			month := int(t.Month()) - 1
			if _, offset := t.Zone(); i > 0 {
				if _, before := s.Time[i-1].Zone(); before == offset && s.Time[i-1].Month() == t.Month() {
					continue
				}
			}
			if text := t.Format("-07:00"); !slices.Contains(months[month], text) {
				months[month] = append(months[month], text)
			}
		}
	}
	return months
}

// moment returns a time as what tells it from others: the instant, or what clocks
// showed if the table of training had no offset from UTC. It was read as UTC, and a
// later table may name the zone of the same clocks.
func (c *clocks) moment(t time.Time) time.Time {
	if c.Layout == "" || c.Zone != "" || c.Offset != "" {
		return t
	}
	_, offset := t.Zone()
	return t.UTC().Add(time.Duration(offset) * time.Second)
}

// zoneFor returns the time zone in which the times of a table are those of the
// clocks of training; nil if they are as they are. It is an error if the table
// does not determine that.
func (c *clocks) zoneFor(panel *data.Panel) (*time.Location, error) {
	p := panel.Style
	if !panel.HasTime || c.Layout == "" || p.Layout == "" { // a table made by a program, or a model of an older version
		return nil, nil
	}
	known := p.Zone != "" || p.Offset != ""
	switch {
	case c.Zone == "" && c.Offset == "":
		if p.Zone == "" && p.Offset != "" {
			return nil, data.Errorf("the model was trained on times without an offset from UTC, and this table's have %s; leave it out if they are of the same place, or give that place's time zone with --tz", (&clocks{TimeStyle: p, Months: offsetsByMonth(panel)}).describe())
		}
		return nil, nil
	case !known:
		return nil, data.Errorf("the model was trained on times with %s, and this table's have no offset from UTC; write it, or give the time zone with --tz", c.describe())
	case c.Zone != "" && c.Zone == p.Zone:
		return nil, nil
	case c.Zone != "":
		return loadZone(c.Zone)
	case c.Offset != data.VaryingOffsets:
		return loadZone(c.Offset)
	}
	all := slices.Concat(c.Months[:]...)
	for month, offsets := range offsetsByMonth(panel) {
		seen := c.Months[month]
		if len(seen) == 0 {
			seen = all
		}
		for _, offset := range offsets {
			if !slices.Contains(seen, offset) {
				return nil, data.Errorf("the model was trained on times with %s, with %s in %s, and this table's have %s there; write them as in training, or give the time zone of training with --tz",
					c.describe(), strings.Join(seen, " or "), time.Month(month+1), offset)
			}
		}
	}
	return nil, nil
}

// describe names what the times say of their zone.
func (c *clocks) describe() string {
	switch {
	case c.Zone != "":
		return "the time zone " + c.Zone
	case c.Offset != data.VaryingOffsets:
		return "the offset " + c.Offset
	}
	all := slices.Concat(c.Months[:]...)
	slices.Sort(all)
	return "the offsets " + joinAnd(slices.Compact(all))
}

// loadZone returns the time zone of a name, or of an offset such as +11:00.
func loadZone(name string) (*time.Location, error) {
	if t, err := time.Parse("-07:00", name); err == nil {
		_, offset := t.Zone()
		return time.FixedZone(name, offset), nil
	}
	zone, err := time.LoadLocation(name)
	if err != nil {
		return nil, data.Errorf("tz: want a time zone such as UTC or Europe/Vienna, or an offset such as +01:00, got %q", name)
	}
	return zone, nil
}

// clockNote says that the offsets of a table vary without a zone that explains it.
func clockNote(panel *data.Panel) string {
	c := clocksOf(panel)
	if c.Offset != data.VaryingOffsets || c.Zone != "" {
		return ""
	}
	return fmt.Sprintf("the times have %s: give their time zone with --tz, so that the model can read tables that are written with other offsets", c.describe())
}
