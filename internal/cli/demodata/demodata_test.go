package demodata

import (
	"bytes"
	"encoding/csv"
	"slices"
	"strconv"
	"testing"
	"time"
)

func TestWriteCSV(t *testing.T) {
	var text bytes.Buffer
	if err := WriteCSV(&text); err != nil {
		t.Fatal(err)
	}
	rows, err := csv.NewReader(&text).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{Time, Demand, Temperature, Holiday}; !slices.Equal(rows[0], want) {
		t.Fatalf("columns %q, want %q", rows[0], want)
	}
	const hours = 3*365*24 + 24 // 2012 was a leap year
	if len(rows)-1 != hours {
		t.Fatalf("%d rows, want %d", len(rows)-1, hours)
	}
	first, err := time.Parse(time.RFC3339, rows[1][0])
	if err != nil {
		t.Fatal(err)
	}
	last, err := time.Parse(time.RFC3339, rows[hours][0])
	if err != nil {
		t.Fatal(err)
	}
	if got := last.Sub(first); got != (hours-1)*time.Hour {
		t.Errorf("first to last row %v, want %v", got, (hours-1)*time.Hour)
	}
	for i, row := range rows[1:] {
		demand, err := strconv.ParseFloat(row[1], 64)
		if err != nil || demand < 2000 || demand > 10000 {
			t.Fatalf("row %d: demand %q, want megawatts of a state of six million people", i, row[1])
		}
		if row[3] != "0" && row[3] != "1" {
			t.Fatalf("row %d: holiday %q, want 0 or 1", i, row[3])
		}
	}
}
