package forecast

import (
	"fmt"
	"slices"
)

// inputNames are the names of the columns of the network's inputs, in the order
// of fillEncoder, fillDecoder, fillUnrolled and fillLinear.
type inputNames struct{ encoder, decoder, linear, static []string }

func (m *Model) inputNames() inputNames {
	cfg, s, d := &m.cfg, m.schema, &m.net.dims
	targets := []string{"target"}
	if d.channels > 1 {
		targets = cfg.targets()
	}
	var n inputNames
	var numbers []string
	for i := range s.Static {
		if s.Static[i].Categories == nil {
			numbers = append(numbers, s.Static[i].Name)
		} else {
			n.static = append(n.static, s.Static[i].Name)
		}
	}
	always := slices.Clone(numbers)
	if d.channels == 1 && d.targets > 1 {
		for _, name := range cfg.targets() {
			always = append(always, "1 if the target is "+name)
		}
	}
	ahead := slices.Concat(cfg.ahead(), missing(cfg, cfg.ahead()), calendarNames(&s.Calendar))
	seasons := seasonNames(s.Lags, targets)
	if cfg.Head == "autoregressive" {
		n.encoder = slices.Concat(targets, missing(cfg, targets), next(ahead), seasons, always)
		return n
	}
	position := "step of the horizon, from 1, by the number of steps"
	n.linear = m.linearNames(numbers)
	if cfg.NoTargetHistory {
		n.encoder = d.ofSegment(slices.Concat(missing(cfg, cfg.Past), cfg.Past, ahead))
		if len(cfg.Past) > 0 {
			n.encoder = append(n.encoder, position+", and 0 in the window")
		}
		n.encoder = append(n.encoder, always...)
		return n
	}
	n.encoder = append(d.ofSegment(slices.Concat(targets, missing(cfg, targets), missing(cfg, cfg.Past), cfg.Past, ahead)), always...)
	n.decoder = slices.Concat(d.ofSegment(slices.Concat(ahead, seasons)), []string{position}, always)
	return n
}

// ofSegment returns the names of the inputs of all rows of a segment.
func (d *shape) ofSegment(row []string) (names []string) {
	if d.segment == 1 {
		return row
	}
	for i := range d.segment {
		for _, name := range row {
			names = append(names, fmt.Sprintf("%s in row %d of the segment", name, i+1))
		}
	}
	return names
}

// missing returns the names of the marks of missing values.
func missing(cfg *Config, columns []string) []string {
	if !masked(cfg) {
		return nil
	}
	names := make([]string, len(columns))
	for i, c := range columns {
		names[i] = "1 where " + c + " is missing"
	}
	return names
}

func next(columns []string) []string {
	names := make([]string, len(columns))
	for i, c := range columns {
		names[i] = c + " of the next row"
	}
	return names
}

func seasonNames(lags []int, targets []string) (names []string) {
	for _, lag := range lags {
		for _, t := range targets {
			names = append(names, fmt.Sprintf("%s in the last season of %d rows", t, lag))
		}
	}
	return names
}

func calendarNames(c *calendar) (names []string) {
	pairs := func(what string, n int) {
		for k := range n {
			names = append(names, fmt.Sprintf("sine of the %s %d", what, k+1), fmt.Sprintf("cosine of the %s %d", what, k+1))
		}
	}
	pairs("day", c.Day)
	pairs("year", c.Year)
	if c.Weekday {
		for _, day := range []string{"Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"} {
			names = append(names, "1 on "+day)
		}
	}
	if c.Month {
		for month := range 12 {
			names = append(names, fmt.Sprintf("1 in month %d", month+1))
		}
	}
	return names
}

// linearNames returns the names of blocks; "name[n]" is n consecutive numbers.
func (m *Model) linearNames(numbers []string) []string {
	cfg, s, d := &m.cfg, m.schema, &m.net.dims
	block := func(name string, n int) string { return fmt.Sprintf("%s[%d]", name, n) }
	names := []string{"1"}
	if !cfg.NoTargetHistory {
		names = append(names, block("target over the window", cfg.Window))
	}
	before := fmt.Sprintf("over the %d rows before the horizon", d.history)
	for _, lag := range s.Lags {
		names = append(names, block(fmt.Sprintf("target %d rows earlier, from %d before the horizon on", lag, s.Before), s.Before+cfg.Horizon))
	}
	for i, column := range cfg.ahead() {
		names = append(names, block(column+" over the horizon", cfg.Horizon))
		if !s.Binary[i] {
			names = append(names, block("its squares", cfg.Horizon))
		}
		if d.history > 0 {
			names = append(names, block("and "+before, d.history))
		}
	}
	for _, column := range cfg.Past {
		if d.history > 0 {
			names = append(names, block(column+" "+before, d.history))
		}
	}
	if n := s.Calendar.annual(); n > 0 {
		names = append(names, block("sines and cosines of the year", n))
	}
	return slices.Concat(names, numbers, []string{"the window's centre"})
}

// outputNames returns the names of the network's outputs for each step.
func outputNames(cfg *Config) []string {
	switch cfg.Loss {
	case "quantile":
		var names []string
		for _, q := range cfg.Quantiles {
			names = append(names, fmt.Sprintf("quantile %v", q))
		}
		return names
	case "gaussian":
		return []string{"mean", "softplus of this is the deviation"}
	case "student-t":
		return []string{"mean", "softplus of this is the scale", "2 + softplus of this are the degrees of freedom"}
	case "negative-binomial":
		return []string{"softplus of this is the mean", "softplus of this is the dispersion"}
	}
	return []string{"location"}
}
