// While an update is being worked out the page looks again by itself.
if (document.querySelector("[data-working]")) setTimeout(() => location.reload(), 2000);
