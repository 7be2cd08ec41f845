# From rows of name, KiB a connection, µs of a delivery, µs in a burst and echoes a second (in thousands) to a picture.
# gnuplot -e "rows='FILE'; connections=5000" plot.gp >FILE.svg
set terminal svg size 1120,560 background rgb '#ffffff' font 'sans-serif,13'
set multiplot layout 2,2 margins 0.03,0.99,0.10,0.92 spacing 0.05,0.19
set datafile separator tab missing '-'
set style fill solid noborder
set boxwidth 0.7
set border 1 linecolor rgb '#e1e1e1'
set tics scale 0 textcolor rgb '#323232'
set xtics rotate by 0 font ',11'
set yrange [0:*]
set offsets 0.1, 0.1, graph 0.12, 0
set title textcolor rgb '#323232' offset 0,-0.3
unset ytics
unset key
set xrange [-0.6:system('wc -l <'.rows) - 0.4]

figure(value) = value < 0.1 ? sprintf('%.2f', value) : value < 10 ? sprintf('%.2g', value) : sprintf('%.3g', value)
color(name) = name eq 'corecast' ? 0x0072b2 : 0xb4b4b4

titles = "'Process memory of an idle connection, KiB' 'One message to all ".connections.": CPU of a delivery, µs' \
    'Burst of messages to all ".connections.": CPU of a delivery, µs' 'Echoes a second on one core, thousands'"
do for [panel = 1:4] {
    set title word(titles, panel)
    plot rows using 0:(column(panel + 1)):(color(strcol(1))):xticlabels(1) with boxes linecolor rgb variable, \
        rows using 0:(column(panel + 1)):(figure(column(panel + 1))) with labels offset 0,0.6 textcolor rgb '#323232'
}
