// Nothing here is Go: this keeps node_modules out of the packages of the module above.
module github.com/tasuki-ha/tasuki/web

go 1.26
