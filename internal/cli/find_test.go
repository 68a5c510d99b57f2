package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/carousel-ml/carousel"
)

// tiny writes data of each task, also of the made-up one, and returns the flags that
// train on them.
func tiny(write func(name, text string)) map[string]string {
	flags := map[string]string{}
	for _, c := range sampledTasks {
		r := rand.New(rand.NewPCG(1, 2))
		text := c.head
		for i := range 24 {
			text += c.sample(r, i)
		}
		write(c.task+c.ext, text)
		flags[c.task] = "--data " + c.task + c.ext + " " + c.settings
	}
	write("hours.csv", string(madeUp(60, "")))
	flags["forecast"] = "--data hours.csv --time time --target y --window 6 --horizon 2 --hidden 4 --layers 1"
	write("book.txt", book(1, 30))
	flags["generate"] = "--data book.txt --hidden 4 --embedding 4 --bptt 16"
	var sums strings.Builder
	for i := range 24 {
		fmt.Fprintf(&sums, "%d 1 2 %d\n", i, i+3)
	}
	write("sums.txt", sums.String())
	flags["sum"] = "--data sums.txt --hidden 4"
	return flags
}

// TestFindEveryTask takes each task, also the made-up one, through both commands: the
// results are as docs/json.md says, and nothing is written but what --out names.
func TestFindEveryTask(t *testing.T) {
	doc, err := readJSONPage()
	if err != nil {
		t.Fatal(err)
	}
	flags := tiny(inTemp(t))
	files := func() (names []string) {
		entries, err := os.ReadDir(".")
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			names = append(names, e.Name())
		}
		return names
	}
	before := files()
	kinds := append(slices.Clone(carousel.Tasks), sumTask)
	for _, k := range kinds {
		t.Run(k.Name, func(t *testing.T) {
			run := func(command string) string {
				t.Helper()
				var out, problems bytes.Buffer
				a := &app{kinds: kinds, args: strings.Fields(command), stdout: &out, stderr: &problems}
				if code := a.run(t.Context()); code != exitOK {
					t.Fatalf("%s: exit code %d\n%s", command, code, &problems)
				}
				return out.String()
			}
			object := func(command string, v any) {
				t.Helper()
				text := run(command + " --quiet --json")
				if _, _, err := doc.check(text); err != nil {
					t.Errorf("%s: %v", command, err)
				}
				if err := json.Unmarshal([]byte(text), v); err != nil {
					t.Fatal(err)
				}
			}
			var rate struct {
				Task    string
				Stopped string
				Points  []struct{ LR, Loss, Smoothed float64 }
			}
			object("find-lr "+k.Name+" "+flags[k.Name]+" --steps 20 --from-lr 1e-5 --to-lr 0.1", &rate)
			n := len(rate.Points)
			if rate.Task != k.Name || n < 3 || (rate.Stopped == "steps") != (n == 20) || rate.Points[0].Loss != rate.Points[0].Smoothed {
				t.Errorf("find-lr: %+v", rate)
			}
			for i := range rate.Points[1:] {
				if !(rate.Points[i+1].LR > rate.Points[i].LR) {
					t.Errorf("the rate of step %d is %v, after %v", i+2, rate.Points[i+1].LR, rate.Points[i].LR)
				}
			}
			var batches struct {
				Task, Setting string
				Suggestion    int
				Sizes         []struct {
					Size    int
					Samples float64
					Rate    float64 `json:"samples_per_second"`
				}
				Noise []struct{ Variance float64 }
				Notes []string
			}
			object("find-batch "+k.Name+" "+flags[k.Name], &batches)
			want := map[string]string{"translate": "batch_tokens", "sum": "accumulate"}[k.Name]
			if want == "" {
				want = "batch"
			}
			if batches.Task != k.Name || batches.Setting != want || batches.Suggestion < 1 || len(batches.Sizes) < 3 || len(batches.Notes) == 0 {
				t.Errorf("find-batch: %+v", batches)
			}
			for i, b := range batches.Sizes {
				if b.Size&(b.Size-1) != 0 || !(b.Rate > 0) || i == 0 && b.Size != 1 || i > 0 && !(b.Size > batches.Sizes[i-1].Size && b.Samples > batches.Sizes[i-1].Samples) {
					t.Errorf("find-batch: %+v", batches.Sizes)
				}
			}
			for _, n := range batches.Noise {
				if !(n.Variance > 0) {
					t.Errorf("noise %+v", n)
				}
			}
			if after := files(); !slices.Equal(after, before) {
				t.Errorf("before there were %q, and now %q", before, after)
			}
		})
	}
}

// Ctrl-C ends a test with one line, and writes nothing.
func TestFindInterrupted(t *testing.T) {
	flags := tiny(inTemp(t))
	for command, text := range map[string]string{
		"find-lr forecast --out lr --steps 1000000 " + flags["forecast"]: "weights\n", // before the first step
		"find-batch forecast " + flags["forecast"]:                       "batch 1:",
		"find-batch classify " + flags["classify"]:                       "measuring the noise",
	} {
		ctx, cancel := context.WithCancel(t.Context())
		var out bytes.Buffer
		watch := &trigger{text: text, fire: cancel}
		if code := run(ctx, strings.Fields(command), nil, &out, watch); code != exitInterrupted || out.Len() > 0 || !strings.HasSuffix(watch.String(), "\ncarousel: interrupted; nothing was written\n") {
			t.Errorf("%s: exit code %d, %q, %q", command, code, &out, watch.String())
		}
		cancel()
	}
	if exists(".", "lr") {
		t.Error("an interrupted test wrote --out")
	}
}
