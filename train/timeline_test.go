package train

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// event is one of Chrome's trace format.
type event struct {
	Name, Ph string
	Pid, Tid int
	Ts, Dur  float64
	Args     map[string]string
}

func readTimeline(t *testing.T, path string) []event {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var list []event
	if err := json.Unmarshal(text, &list); err != nil {
		t.Fatalf("%v:\n%s", err, text)
	}
	return list
}

// The timeline of a run has every step's parts within the run, in tracks that do not
// overlap, and is a whole document at any time.
func TestTimeline(t *testing.T) {
	path := filepath.Join(t.TempDir(), "timeline.json")
	line, err := NewTimeline(path, 3)
	if err != nil {
		t.Fatal(err)
	}
	job, o := newJob(38), newOptions()
	o.Batch, o.Accumulate, o.Epochs, o.Timeline, o.Dir = 4, 2, 3, line, t.TempDir()
	whole := 0
	o.OnEpoch = func(Record) error {
		whole += len(readTimeline(t, path))
		return nil
	}
	r := fit(t, job, o)
	if whole == 0 {
		t.Error("nothing was in the file during the run")
	}
	if err := line.Close(); err != nil {
		t.Fatal(err)
	}
	line.span(trackTraining, "late", line.now())
	count := map[string]int{}
	named := map[string]bool{}
	end := map[int]float64{}
	for _, e := range readTimeline(t, path) {
		if e.Pid != 3 {
			t.Errorf("%+v is of another rank", e)
		}
		if e.Ph == "M" {
			named[e.Args["name"]] = true
			continue
		}
		if e.Ph != "X" || e.Ts < 1e15 || e.Dur < 0 || e.Ts < end[e.Tid]-1 { // a microsecond is lost to rounding
			t.Errorf("%+v begins before %v", e, end[e.Tid])
		}
		end[e.Tid] = e.Ts + e.Dur
		count[strings.Fields(e.Name)[0]]++
	}
	batches := 10 * 3
	for name, want := range map[string]int{"forward": batches, "backward": batches, "optimizer": r.Steps, "validation": 3} {
		if count[name] != want {
			t.Errorf("%d spans of %s, want %d", count[name], name, want)
		}
	}
	if count["load"] < batches || count["checkpoint"] < 2 || !named["rank 3"] || !named["sums"] {
		t.Errorf("spans %v, names %v", count, named)
	}
}

// A timeline holds no more than its room, and an error of the file ends it alone.
func TestTimelineIsBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "timeline.json")
	line, err := NewTimeline(path, 0)
	if err != nil {
		t.Fatal(err)
	}
	for range 5000 {
		line.span(trackSums, "sum a \"quoted\" näme", line.now())
	}
	if n := cap(line.text); n > 2*timelineRoom {
		t.Errorf("%d bytes are held", n)
	}
	if n := len(readTimeline(t, path)); n < 4000 { // what an interrupted run leaves
		t.Errorf("%d events in the file", n)
	}
	if err := line.file.Close(); err != nil {
		t.Fatal(err)
	}
	for range 5000 {
		line.span(trackSums, "sum", line.now())
	}
	if line.Close() == nil {
		t.Error("no error of a file that is closed")
	}
	var none *Timeline
	if n := testing.AllocsPerRun(10, func() { none.span(trackSums, "sum", none.now()) }); n != 0 || none.Close() != nil {
		t.Errorf("no timeline allocates %v", n)
	}
	if _, err := NewTimeline(filepath.Join(path, "below"), 0); err == nil {
		t.Error("a timeline below a file")
	}
}
