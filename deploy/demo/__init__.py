"""The demo sends real events of a real data set through a real Kafka and a worker process, and shows them live.

source       choose the data: a folder, a download, or a generated data set
trained      train and export once for this data and this code; later runs reuse the bundle
folders      create a fresh folder for each run, and clean up what a crashed run left behind
processes    run the worker and the gateway as separate processes
page         keep the hit rate for the demo page
client       send events and read slates, like any client of freshet
warmup       send every user's history except the last choices
closed_loop  choose the held-out event to send next (closed loop per user). Pure
holdout      describe the held-out events
replay       send the held-out events, measure them and count the hits
hit_rate     compute the hit rate and compare it with popularity. Pure
progress     hold what is shown; terminal draws it on a terminal
watch        show new slates after the replay until the user leaves
keyboard     read single keys from the terminal
run          run all steps in order
"""
