package cli

import (
	"context"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/term"

	"github.com/carousel-ml/carousel/report"
	"github.com/carousel-ml/carousel/tune"
)

// searchView shows a study at work: on a terminal a block that is redrawn in place, elsewhere a line for each
// trial that has ended or was paused.
type searchView struct {
	w     io.Writer
	width func() int // columns of the terminal; nil: plain lines
	study *openedStudy
	total int           // trials
	limit time.Duration // 0: none

	begun  time.Time
	before int            // trials that were done by then
	told   map[int]string // what was told of a trial last
	drawn  int            // lines of the block on the screen
}

// newSearchView returns the view of a study; nil with --quiet, whose methods do nothing.
func (a *app) newSearchView(s *openedStudy, total int, limit time.Duration) *searchView {
	if a.quiet {
		return nil
	}
	v := &searchView{w: a.stderr, study: s, total: total, limit: limit, begun: time.Now(), told: map[int]string{}}
	for _, r := range s.list {
		v.told[r.Number] = standing(r)
		if r.State != tune.Running {
			v.before++
		}
	}
	if isTerminal(a.stderr) && os.Getenv("TERM") != "dumb" {
		fd := int(a.stderr.(*os.File).Fd())
		v.width = func() int {
			if w, _, err := term.GetSize(fd); err == nil && w > 0 {
				return w
			}
			return 80
		}
	}
	return v
}

// standing is the state of a trial, and how far it has come.
func standing(r *tune.Record) string {
	if n := len(r.Curve); r.State == tune.Paused && n > 0 {
		return fmt.Sprintf("%s after %d", r.State, r.Curve[n-1].At)
	}
	return string(r.State)
}

const viewEvery = 300 * time.Millisecond

// watch shows the study until the function that it returns is called.
func (v *searchView) watch(ctx context.Context) (stop func()) {
	if v == nil {
		return func() {}
	}
	ctx = context.WithoutCancel(ctx) // what was done before Ctrl-C is shown too
	end, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			v.show(ctx)
			select {
			case <-end:
				v.show(ctx)
				v.clear()
				return
			case <-time.After(viewEvery):
			}
		}
	}()
	return func() { close(end); <-done }
}

// show reads the study and shows it. What cannot be read now is shown the next time.
func (v *searchView) show(ctx context.Context) {
	list, err := v.study.Trials(ctx)
	if err != nil {
		return
	}
	v.study.list = list
	if v.width == nil {
		v.tell()
		return
	}
	v.clear()
	for _, line := range v.block(time.Since(v.begun)) {
		fmt.Fprintln(v.w, report.Shorten(line, max(v.width()-1, 10))) // the last column stays free: some terminals wrap when it is filled
		v.drawn++
	}
}

// clear removes the block.
func (v *searchView) clear() {
	if v.drawn > 0 {
		fmt.Fprintf(v.w, "\x1b[%dA\r\x1b[J", v.drawn)
		v.drawn = 0
	}
}

// tell prints a line for each trial that has ended or was paused since.
func (v *searchView) tell() {
	s := v.study
	for _, r := range s.list {
		state := standing(r)
		if r.State == tune.Running || v.told[r.Number] == state {
			continue
		}
		v.told[r.Number] = state
		if n := s.Options.Resource; r.State == tune.Paused && n > 0 {
			state += fmt.Sprintf(" of %d", n)
		}
		text := fmt.Sprintf("trial %d %s", r.Number, state)
		switch line := s.resultLine(r); {
		case r.State == tune.Failed:
			text += ": " + r.Error
		case line != "":
			text += ": " + line
		}
		text += "; " + s.paramsLine(r)
		if best := s.Best(s.list); len(best) > 0 && len(s.Options.Objectives) == 1 {
			text += fmt.Sprintf("; best %s, trial %d", valueText(best[0].Results, 0), best[0].Number)
		}
		fmt.Fprintln(v.w, text)
	}
}

// mostRunning is the number of running trials that the block has lines for.
const mostRunning = 12

// block returns the lines of the block after a time.
func (v *searchView) block(took time.Duration) (lines []string) {
	s := v.study
	counts, done := countOf(s.list), 0
	var parts []string
	for _, state := range stateOrder {
		if n := counts[state]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, state))
		}
	}
	for _, r := range s.list {
		if r.State != tune.Running {
			done++
		}
	}
	head := fmt.Sprintf("%d of %d trials", done, v.total)
	if len(parts) > 0 {
		head += ": " + strings.Join(parts, ", ")
	}
	if rate := float64(done-v.before) / took.Minutes(); rate > 0 && !math.IsInf(rate, 0) {
		head += fmt.Sprintf("  %.3g trials/min", rate)
		left := time.Duration(float64(v.total-done) / rate * float64(time.Minute))
		if v.limit > 0 {
			left = min(left, max(v.limit-took, 0))
		}
		head += fmt.Sprintf("  %s left", left.Round(time.Second))
	} else if v.limit > 0 {
		head += fmt.Sprintf("  %s left", max(v.limit-took, 0).Round(time.Second))
	}
	lines = append(lines, head)
	best := s.Best(s.list)
	if n := len(best); n > 0 && len(s.Options.Objectives) > 1 {
		lines = append(lines, fmt.Sprintf("front of %s, among them trial %d: %s", report.Plural(n, "trial"), best[0].Number, s.resultLine(best[0])))
	} else if n > 0 {
		lines = append(lines, fmt.Sprintf("best: trial %d, %s  %s", best[0].Number, s.resultLine(best[0]), s.paramsLine(best[0])))
	}
	running := slices.DeleteFunc(slices.Clone(s.list), func(r *tune.Record) bool { return r.State != tune.Running })
	for _, r := range running[:min(len(running), mostRunning)] {
		line := fmt.Sprintf("%5d  %-*s", r.Number, sparkWidth, sparkline(r.Curve))
		if n := len(r.Curve); n > 0 {
			at := fmt.Sprint(r.Curve[n-1].At)
			if whole := s.Options.Resource; whole > 0 {
				at += "/" + fmt.Sprint(whole)
			}
			line += fmt.Sprintf("  %s at %s", s.resultLine(r), at)
		}
		lines = append(lines, line+"  "+s.paramsLine(r))
	}
	return lines
}

const sparkWidth = 16

// sparkline draws the first objective of the last points of a curve.
func sparkline(curve []tune.Point) string {
	curve = curve[max(0, len(curve)-sparkWidth):]
	values := make([]float64, len(curve))
	for i, q := range curve {
		values[i] = q.Values[0]
	}
	low, high := bounds(values)
	var b strings.Builder
	for _, x := range values {
		at := 0.0
		if high > low && !math.IsNaN(x) {
			at = (x - low) / (high - low) * float64(len(blocks)-1)
		}
		b.WriteRune(blocks[int(math.Round(at))])
	}
	return b.String()
}
