package forecast

import (
	"cmp"
	"encoding/csv"
	"io"
	"math"
	"strconv"

	"github.com/carousel-ml/carousel/model"
)

// scoredFile writes the forecasts that are scored as CSV, one line for each step of
// each target of each window.
type scoredFile struct {
	d   *dataset
	m   *Model
	csv *csv.Writer
}

// keeping calls run with a file for the forecasts, which is written as a whole, or
// with nil without a path. Its errors are those of run and of writing.
func (m *Model) keeping(path string, d *dataset, levels []float64, run func(*scoredFile) error) error {
	if path == "" {
		return run(nil)
	}
	return model.WriteFileAtomic(path, func(w io.Writer) error {
		f := &scoredFile{d, m, csv.NewWriter(w)}
		head := []string{"series", "target", "origin", "time", "actual", "forecast"}
		if !d.HasTime {
			head[3] = "row"
		}
		for _, q := range levels {
			head = append(head, "q"+strconv.FormatFloat(q, 'g', -1, 64))
		}
		f.line(head)
		if err := run(f); err != nil {
			return err
		}
		f.csv.Flush()
		return f.csv.Error()
	})
}

// add writes one target of one window, with the times, or the numbers of rows, as
// the table has them. A value that was not measured is empty.
func (f *scoredFile) add(w window, k int, s *steps) {
	if f == nil {
		return
	}
	frame, origin := f.d.frames[w.frame], int(w.origin)
	at := func(row int) string {
		return cmp.Or(frame.stamp(row), strconv.Itoa(row+1))
	}
	number := func(x float64) string { return strconv.FormatFloat(x, 'g', -1, 64) }
	for h := s.from; h < len(s.point); h++ {
		row := origin + h
		if row >= frame.end {
			break
		}
		line := []string{frame.id, f.m.cfg.targets()[k], at(origin - 1), at(row), "", number(s.point[h])}
		if v := frame.raw[k][row]; !math.IsNaN(v) {
			line[4] = number(v)
		}
		for _, q := range s.quantiles[h] {
			line = append(line, number(q))
		}
		f.line(line)
	}
}

func (f *scoredFile) line(cells []string) {
	_ = f.csv.Write(cells) // Error returns the first error after Flush
}
