package forecast

import (
	"strconv"
	"strings"
	"time"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/report"
	"github.com/carousel-ml/carousel/task"
)

// span is the rows [lo, hi) of a series.
type span struct{ lo, hi int }

func (s span) len() int { return s.hi - s.lo }

// parts are the training, validation and test rows of a series.
type parts [3]span

// The indices of the parts.
const (
	trainPart = iota
	validationPart
	testPart
)

var partNames = []task.Part{task.Training, task.Validation, task.Test}

// split divides the rows of a series: a data.Split, or counts of which one is the
// rest.
type split struct {
	data   data.Split
	counts []int // -1: the rest; nil: data is used
}

const defaultSplit = "0.7,0.1,0.2"

// parseSplit parses Config.Split; "" is the default. An invalid one is a
// *data.InputError.
func parseSplit(text string) (*split, error) {
	if text == "" {
		text = defaultSplit
	}
	fields := strings.Split(text, ",")
	if len(fields) != 3 || !strings.Contains(text, "rest") {
		s, err := data.ParseSplit(text)
		return &split{data: s}, err
	}
	s := &split{}
	rest := 0
	for _, f := range fields {
		if f = strings.TrimSpace(f); f == "rest" {
			s.counts = append(s.counts, -1)
			rest++
			continue
		}
		n, err := strconv.Atoi(f)
		if err != nil || n < 0 {
			return nil, data.Errorf("split: want numbers of rows beside \"rest\", such as rest,48,48, got %q", text)
		}
		s.counts = append(s.counts, n)
	}
	if rest != 1 || s.counts[trainPart] == 0 {
		return nil, data.Errorf("split: want \"rest\" once and rows to train on, such as rest,48,48, got %q", text)
	}
	return s, nil
}

// rows divides n rows. Too few rows are a *data.InputError, with the parts that
// there are rows for: the last rows if one part is the rest.
func (s *split) rows(n int, times []time.Time) (parts, error) {
	if s.counts == nil {
		p, err := s.data.Apply(n, times[:min(n, len(times))])
		return parts{{p.Train.Start, p.Train.End}, {p.Val.Start, p.Val.End}, {p.Test.Start, p.Test.End}}, err
	}
	total := 0
	for _, c := range s.counts {
		total += max(c, 0)
	}
	var err error
	if total >= n {
		err = data.Errorf("split: needs more than %s; there are %d", report.Plural(total, "row"), n)
	}
	var p parts
	at := n - max(total, n)
	for i, c := range s.counts {
		if c < 0 {
			c = max(0, n-total)
		}
		p[i] = span{max(0, at), max(0, at+c)}
		at += c
	}
	return p, err
}
