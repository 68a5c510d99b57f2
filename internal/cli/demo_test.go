package cli

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/carousel-ml/carousel"
)

// The demo, cut to a network and a time that a test can spare, leaves all its
// files and shows the pattern of the week.
func TestDemo(t *testing.T) {
	if testing.Short() {
		t.Skip("fits a regression to 18,000 windows")
	}
	dir := filepath.Join(t.TempDir(), "demo")
	var stdout, stderr bytes.Buffer
	a := &app{kinds: carousel.Tasks, stdout: &stdout, stderr: &stderr}
	small := demoConfig()
	small.Hidden, small.Layers, small.WindowStride, small.Epochs, small.MaxTime = 4, 1, 48, 1, 5*time.Second
	if err := a.demo(t.Context(), dir, small); err != nil {
		t.Fatalf("%v\n%s", err, stderr.String())
	}
	for _, name := range []string{demoTable, demoLatest, demoForecast, "run/config.json", "run/report.html", "run/profile.png"} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Size() == 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, want := range []string{"seasonal naive 168", "Weekdays, measured", "Weekends, forecast", "carousel predict"} {
		if !strings.Contains(stdout.String(), want) {
			t.Errorf("the output lacks %q:\n%s", want, stdout.String())
		}
	}
	if !strings.Contains(stderr.String(), "known ahead") {
		t.Error("the demo does not say that the temperature is taken as known over the horizon")
	}
	rows, err := os.ReadFile(filepath.Join(dir, demoForecast))
	if err != nil {
		t.Fatal(err)
	}
	if n := bytes.Count(rows, []byte("\n")); n != 1+openRows {
		t.Errorf("the forecast has %d lines, want a header and %d hours", n, openRows)
	}

	// It may be run again over itself, but not over anything else.
	if err := checkDemoOut(dir); err != nil {
		t.Errorf("an earlier demo is in the way: %v", err)
	}
	if err := checkDemoOut(filepath.Join(dir, "run")); exitCode(err) != exitMisuse {
		t.Errorf("a directory with other files gives %v, want misuse", err)
	}
}
