// Command carousel trains, evaluates and applies recurrent sequence models.
package main

import (
	"os"
	_ "time/tzdata" // --tz must work on machines without time zones, such as a bare container

	"github.com/carousel-ml/carousel/internal/cli"
)

func main() {
	os.Exit(cli.Main(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}
