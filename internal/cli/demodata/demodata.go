// Package demodata embeds the series that carousel demo learns.
//
// It is the hourly electricity demand of Victoria, Australia, from 2012 to
// 2014, with the temperature of Melbourne and a mark on public holidays: hourly
// means of the half-hourly figures of the Australian Energy Market Operator, and
// the temperature beside them, as the R package tsibbledata carries them
// (data set vic_elec). Times are local, with their offset from UTC.
package demodata

import (
	"bytes"
	"compress/gzip"
	_ "embed"
	"fmt"
	"io"
)

//go:embed vic_elec.csv.gz
var packed []byte

// The columns of the table.
const (
	Time        = "time"          // RFC 3339, local time with offset
	Demand      = "demand_mw"     // megawatts, mean over the hour
	Temperature = "temperature_c" // degrees Celsius, Melbourne
	Holiday     = "holiday"       // 1 on public holidays, else 0
)

// Zone is the time zone of the times.
const Zone = "Australia/Melbourne"

// Source is where the figures come from, in one line.
const Source = "Australian Energy Market Operator, Victoria, 2012-2014, hourly means of half-hourly figures, with Melbourne's temperature, via the R package tsibbledata"

// WriteCSV writes the table as CSV, with a header line and one line an hour.
func WriteCSV(w io.Writer) error {
	r, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return fmt.Errorf("embedded demo data: %w", err)
	}
	if _, err := io.Copy(w, r); err != nil {
		return fmt.Errorf("demo data: %w", err)
	}
	return nil
}
