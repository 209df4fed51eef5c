// Command tasuki is the whole of Tasuki: daemon, command line, lab, and the
// clp names under another argv[0].
package main

func main() {}
