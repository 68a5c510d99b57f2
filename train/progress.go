package train

import (
	"fmt"
	"io"
	"math"
	"os"
	"strings"
	"time"

	"golang.org/x/term"
)

// Progress shows a run to a person: a bar redrawn in place on a terminal, plain
// lines at intervals elsewhere. A nil Progress shows nothing.
type Progress struct {
	W     io.Writer
	Width func() int    // returns the columns of the terminal; nil: plain lines
	Every time.Duration // minimum time between plain lines; 0 means 5 seconds

	now     func() time.Time
	plan    plan
	begun   time.Time // of this session
	from    int       // the step at which it began
	shown   time.Time
	loss    float64
	val     float64
	hasVal  bool
	scale   float32 // of the loss; 0: none
	skipped int     // steps
	drawn   bool    // the bar is on the current line
}

// plan is what is known about a run in advance.
type plan struct {
	epochs, steps int     // totals; 0: unknown
	perStep       float64 // samples
	metric        string
	limit         time.Duration // MaxTime less what earlier sessions took; 0: none
}

// NewProgress shows progress on f, usually os.Stderr: a bar if f is a terminal.
func NewProgress(f *os.File) *Progress {
	p := &Progress{W: f}
	if fd := int(f.Fd()); term.IsTerminal(fd) && os.Getenv("TERM") != "dumb" {
		p.Width = func() int {
			w, _, err := term.GetSize(fd)
			if err != nil || w <= 0 {
				return 80
			}
			return w
		}
	}
	return p
}

// about prints what is trained on what, and the number of weights.
func (p *Progress) about(text string, weights int) {
	if p != nil && text != "" {
		fmt.Fprintf(p.W, "%s; %d weights\n", text, weights)
	}
}

const redraw = 100 * time.Millisecond

func (p *Progress) start(pl plan, step int) {
	if p == nil {
		return
	}
	if p.now == nil {
		p.now = time.Now
	}
	p.plan, p.from, p.begun = pl, step, p.now()
	p.shown, p.loss, p.hasVal, p.drawn = p.begun, math.NaN(), false, false
	p.scale, p.skipped = 0, 0
}

// scaling sets the scale of the loss and the number of skipped steps, which are shown
// from then on.
func (p *Progress) scaling(scale float32, skipped int) {
	if p != nil {
		p.scale, p.skipped = scale, skipped
	}
}

// step is called after each optimizer step and prints if it is time to. A NaN
// loss was not read; the last one stays on display.
func (p *Progress) step(epoch, step int, loss float64) {
	if p == nil {
		return
	}
	if !math.IsNaN(loss) {
		p.loss = loss
	}
	if p.due() {
		p.show(epoch, step, p.loss)
	}
}

// epoch is called after each epoch. The first one is always shown.
func (p *Progress) epoch(r *Record) {
	if p == nil {
		return
	}
	if v, ok := r.Val[p.plan.metric]; ok {
		p.val, p.hasVal = v, true
	}
	if p.due() || r.Epoch == 1 {
		p.show(r.Epoch, r.Step, r.TrainLoss)
	}
}

func (p *Progress) due() bool {
	wait := p.Every
	switch {
	case p.Width != nil:
		wait = redraw
	case wait == 0:
		wait = 5 * time.Second
	}
	return p.now().Sub(p.shown) >= wait
}

func (p *Progress) show(epoch, step int, loss float64) {
	now := p.now()
	p.shown = now
	text := p.text(epoch, step, loss, now.Sub(p.begun))
	if p.Width == nil {
		fmt.Fprintln(p.W, text)
		return
	}
	// The last column stays free: some terminals wrap when it is filled.
	if most := max(p.Width()-1, 10); len(text) > most {
		text = text[:most]
	}
	fmt.Fprintf(p.W, "\r%s\x1b[K", text)
	p.drawn = true
}

// text returns the line, in ASCII.
func (p *Progress) text(epoch, step int, loss float64, took time.Duration) string {
	var b strings.Builder
	fmt.Fprintf(&b, "epoch %d", epoch)
	if p.plan.epochs > 0 {
		fmt.Fprintf(&b, "/%d", p.plan.epochs)
	}
	if done := p.done(step, took); p.Width != nil && done >= 0 {
		const cells = 24
		full := int(done * cells)
		fmt.Fprintf(&b, " [%s%s] %3.0f%%", strings.Repeat("=", full), strings.Repeat(" ", cells-full), done*100)
	} else if p.plan.steps > 0 {
		fmt.Fprintf(&b, "  step %d/%d", step, p.plan.steps)
	} else {
		fmt.Fprintf(&b, "  step %d", step)
	}
	if rate := float64(step-p.from) / took.Seconds(); rate > 0 && !math.IsInf(rate, 0) {
		fmt.Fprintf(&b, "  %.4g samples/s", rate*p.plan.perStep)
	}
	if !math.IsNaN(loss) {
		fmt.Fprintf(&b, "  loss %.4g", loss)
	}
	if p.scale > 0 {
		fmt.Fprintf(&b, "  scale %g  skipped %d", p.scale, p.skipped)
	}
	if p.hasVal {
		fmt.Fprintf(&b, "  val_%s %.4g", p.plan.metric, p.val)
	}
	if left, ok := p.left(step, took); ok {
		fmt.Fprintf(&b, "  %s left", clock(left))
	}
	return b.String()
}

// done returns the fraction of the run that is done, -1 if it is unknown.
func (p *Progress) done(step int, took time.Duration) float64 {
	part := -1.0
	if p.plan.steps > 0 {
		part = float64(step) / float64(p.plan.steps)
	}
	if p.plan.limit > 0 {
		part = max(part, float64(took)/float64(p.plan.limit))
	}
	return min(part, 1)
}

// left returns the time to the end if nothing stops the run sooner.
func (p *Progress) left(step int, took time.Duration) (time.Duration, bool) {
	left, ok := time.Duration(0), false
	if n := step - p.from; p.plan.steps > 0 && n > 0 {
		left, ok = time.Duration(float64(took)*float64(p.plan.steps-step)/float64(n)), true
	}
	if p.plan.limit > 0 {
		if rest := p.plan.limit - took; !ok || rest < left {
			left, ok = rest, true
		}
	}
	return max(left, 0), ok
}

// clock formats a duration to the second: 42s, 3m07s, 2h05m.
func clock(d time.Duration) string {
	s := int(d.Seconds() + 0.5)
	switch {
	case s < 60:
		return fmt.Sprintf("%ds", s)
	case s < 3600:
		return fmt.Sprintf("%dm%02ds", s/60, s%60)
	}
	return fmt.Sprintf("%dh%02dm", s/3600, s/60%60)
}

func count(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

// finish clears the bar and prints how the run ended.
func (p *Progress) finish(r *Result, metric string) {
	if p == nil {
		return
	}
	p.clear()
	skipped := ""
	if r.Skipped > 0 {
		skipped = fmt.Sprintf(", %d of them skipped,", r.Skipped)
	}
	fmt.Fprintf(p.W, "%s, %s%s in %s (stopped by: %s)", count(r.Epochs, "epoch"), count(r.Steps, "step"), skipped, clock(r.Elapsed), r.Stopped)
	if r.Best != nil {
		fmt.Fprintf(p.W, "; best val_%s %.4g at epoch %d", metric, r.Best.Val[metric], r.Best.Epoch)
	}
	fmt.Fprintln(p.W)
}

// clear removes the bar, so that other text can follow.
func (p *Progress) clear() {
	if p != nil && p.drawn {
		fmt.Fprint(p.W, "\r\x1b[K")
		p.drawn = false
	}
}
