package forecast

import (
	"math"
	"time"

	"github.com/carousel-ml/carousel/data"
)

// calendar computes inputs from the local time. Which ones depends on the spacing
// of the rows and on the time that the training rows cover: a cycle that occurs
// less than twice cannot be distinguished from a trend.
type calendar struct {
	Day     int  `json:"day"`     // harmonics of the day
	Weekday bool `json:"weekday"` // one input per weekday
	Month   bool `json:"month"`   // one input per month
	Year    int  `json:"year"`    // harmonics of the year
	Slots   int  `json:"slots"`   // slots of a day that the linear model distinguishes (1: only days)
	Groups  int  `json:"groups"`  // number of values of group; 0: none
}

const day = 24 * time.Hour

// newCalendar chooses inputs for the spacing of the rows and the time that they
// cover.
func newCalendar(freq data.Freq, covered time.Duration) *calendar {
	c := &calendar{}
	epoch := time.Date(2001, 1, 1, 0, 0, 0, 0, time.UTC)
	step := freq.Add(epoch, 1).Sub(epoch)
	years := covered.Hours() / (24 * 365.25)
	weeks := covered.Hours() / (24 * 7)
	switch {
	case step <= 0:
	case step <= 12*time.Hour:
		c.Day, c.Slots = 2, 24
		if step == 30*time.Minute {
			c.Slots = 48
		}
		c.Groups = c.Slots
		if weeks >= 4 {
			c.Weekday, c.Groups = true, 7*c.Slots
		}
		if years >= 1.9 {
			c.Year = 1
		}
	case step < 5*day:
		c.Slots = 1
		if weeks >= 4 {
			c.Weekday, c.Groups = true, 7
		}
		if years >= 1.9 {
			c.Year = 2
		}
	case step < 27*day:
		if years >= 1.9 {
			c.Year = 2
		}
	case step < 300*day:
		if years >= 2.9 {
			c.Month, c.Groups = true, 12
		}
	}
	return c
}

// width returns the number of inputs.
func (c *calendar) width() int {
	n := 2*c.Day + 2*c.Year
	if c.Weekday {
		n += 7
	}
	if c.Month {
		n += 12
	}
	return n
}

// annual returns the number of inputs that yearly writes.
func (c *calendar) annual() int { return 2 * c.Year }

// fill writes the inputs of a time to dst [width], which must be zero.
func (c *calendar) fill(dst []float32, t time.Time) {
	hours := float64(t.Hour()) + float64(t.Minute())/60 + float64(t.Second())/3600
	i := harmonics(dst, c.Day, hours/24)
	i += c.yearly(dst[i:], t)
	if c.Weekday {
		dst[i+weekday(t)] = 1
		i += 7
	}
	if c.Month {
		dst[i+int(t.Month())-1] = 1
	}
}

// yearly writes the harmonics of the year and returns their number.
func (c *calendar) yearly(dst []float32, t time.Time) int {
	return harmonics(dst, c.Year, float64(t.YearDay()-1)/365.25)
}

// group returns the number of the kind of time that the linear model
// distinguishes: hour and weekday, weekday or month.
func (c *calendar) group(t time.Time) int32 {
	switch {
	case c.Groups == 0:
		return 0
	case c.Month:
		return int32(t.Month()) - 1
	}
	slot := 0
	if c.Slots > 1 {
		slot = (t.Hour()*60 + t.Minute()) * c.Slots / (24 * 60)
	}
	if c.Groups > c.Slots {
		slot += weekday(t) * c.Slots
	}
	return int32(slot)
}

// harmonics writes n sine and cosine pairs of a phase in turns, and returns 2n.
func harmonics(dst []float32, n int, turns float64) int {
	for k := range n {
		s, c := math.Sincos(2 * math.Pi * float64(k+1) * turns)
		dst[2*k], dst[2*k+1] = float32(s), float32(c)
	}
	return 2 * n
}

// weekday returns the day of the week, from 0 for Monday.
func weekday(t time.Time) int { return (int(t.Weekday()) + 6) % 7 }
