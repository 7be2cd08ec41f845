module classic

go 1.19
