module lbhealth

go 1.19
